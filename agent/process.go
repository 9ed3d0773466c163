package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxLine is where a child's line is cut.
const maxLine = 16 << 10

// lines gives what a child writes to use, line by line.
func lines(use func(string)) io.WriteCloser {
	r, w := io.Pipe()
	go func() { // ends when the child's output does
		in := bufio.NewReaderSize(r, maxLine)
		for {
			line, err := in.ReadSlice('\n')
			if text := strings.TrimRight(string(line), "\r\n"); text != "" {
				use(text)
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				_ = r.CloseWithError(err) // so that no writer blocks
				return
			}
		}
	}()
	return w
}

// envoyLine logs a line of Envoy's by the level that it begins with.
func envoyLine(ctx context.Context, log *slog.Logger, line string) {
	levels := map[string]slog.Level{
		"[error]": slog.LevelError, "[critical]": slog.LevelError, "[warning]": slog.LevelWarn, "[info]": slog.LevelInfo,
		"[debug]": slog.LevelDebug, "[trace]": slog.LevelDebug,
	}
	name, text, _ := strings.Cut(line, " ")
	if level, ok := levels[name]; ok {
		log.Log(ctx, level, text)
		return
	}
	log.InfoContext(ctx, line)
}

// ownLine logs a line that a process of ours wrote as JSON. What is not, such as
// a panic, is an error.
func ownLine(ctx context.Context, log *slog.Logger, line string) {
	var record map[string]any
	if json.Unmarshal([]byte(line), &record) != nil {
		log.ErrorContext(ctx, line)
		return
	}
	var level slog.Level
	if text, _ := record[slog.LevelKey].(string); level.UnmarshalText([]byte(text)) != nil {
		level = slog.LevelError
	}
	message, _ := record[slog.MessageKey].(string)
	var attrs []slog.Attr
	for _, k := range slices.Sorted(maps.Keys(record)) {
		if k != slog.LevelKey && k != slog.MessageKey && k != slog.TimeKey {
			attrs = append(attrs, slog.Any(k, record[k]))
		}
	}
	log.LogAttrs(ctx, level, message, attrs...)
}

// restarts is how long a process that ended is left before it is started again:
// from first to most, doubled each time, and anew after one that lived for settled.
type restarts struct{ first, most, settled, next time.Duration }

func (r *restarts) after(lived time.Duration) time.Duration {
	if r.next == 0 || lived > r.settled {
		r.next = r.first
	}
	pause := r.next
	r.next = min(2*pause, r.most)
	return pause
}
