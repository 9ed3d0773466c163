package child

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
)

// maxLine is where a child's line is cut.
const maxLine = 16 << 10

// Lines gives what a child writes to use, line by line. A line that is longer than
// maxLine is given in parts. What it returns is for Spec.Stdout and Stderr, and is
// closed when the child has ended (Spec.Begun).
func Lines(use func(string)) io.WriteCloser {
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

// LogLine logs a line that a process of ours wrote as JSON. What is not, such as
// a panic, is an error.
func LogLine(ctx context.Context, log *slog.Logger, line string) {
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
