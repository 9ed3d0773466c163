package sampled

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"signet.example/internal/plain"
)

const (
	// perMinute is how many records of one message are written in a minute, and
	// perCaller how many of them about one caller.
	perMinute, perCaller = 20, 5
	window               = time.Minute
	// mostText bounds one value of a record.
	mostText = 1 << 10
	// mostMessages is how many messages have a budget of their own. Messages are
	// constants of the program, fewer than that.
	mostMessages = 1024
)

// callers are the attributes that say whom a record is about.
var callers = []string{"agent", "remote", "uid", "pid", "node", "spiffe_id", "proxy"}

// Handler is a slog.Handler that bounds warnings and errors, by message: what a
// stranger can cause is one of these. When a minute is over, one record tells
// how many more there were. Text in attributes is made plain and short.
type Handler struct {
	slog.Handler
	messages *messages
}

// messages is shared by a handler and those derived from it.
type messages struct {
	inner slog.Handler // without the attributes of a derived one
	mu    sync.Mutex
	by    map[string]*Budget // guarded by mu
}

// NewHandler bounds what is written to inner.
func NewHandler(inner slog.Handler) *Handler {
	return &Handler{inner, &messages{inner: inner, by: map[string]*Budget{}}}
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{h.Handler.WithAttrs(plainAttrs(attrs)), h.messages}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.Handler.WithGroup(name), h.messages}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	key := ""
	attrs := make([]slog.Attr, 0, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		a = plainAttr(a)
		if key == "" && slices.Contains(callers, a.Key) {
			key = a.Value.String()
		}
		attrs = append(attrs, a)
		return true
	})
	if r.Level >= slog.LevelWarn {
		if ok := h.messages.take(ctx, r, key); !ok {
			return nil
		}
	}
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	out.AddAttrs(attrs...)
	return h.Handler.Handle(ctx, out)
}

// take reports whether a record is written. With the first that is not, it sees
// to it that the number is, in a while.
func (m *messages) take(ctx context.Context, r slog.Record, key string) bool {
	b := m.budget(r.Message)
	ok, first := b.Take(r.Time, key)
	if first {
		ctx := context.WithoutCancel(ctx)
		time.AfterFunc(window, func() { m.tell(ctx, r.Level, r.Message, b) })
	}
	return ok
}

func (m *messages) budget(message string) *Budget {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.by[message]
	if b == nil {
		if len(m.by) >= mostMessages {
			message = "" // one budget for all that come later
		}
		if b = m.by[message]; b == nil {
			b = &Budget{Most: perMinute, PerKey: perCaller, Window: window}
			m.by[message] = b
		}
	}
	return b
}

func (m *messages) tell(ctx context.Context, level slog.Level, message string, b *Budget) {
	n, since := b.Missed()
	if n == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), level, "more like this", 0)
	r.AddAttrs(slog.String("message", message), slog.Int("times", n), slog.Time("since", since))
	_ = m.inner.Handle(ctx, r) // as for any record: there is nowhere to tell
}

// Flush writes the numbers that are still owed. The process ends.
func (h *Handler) Flush(ctx context.Context) {
	h.messages.mu.Lock()
	owed := maps.Clone(h.messages.by)
	h.messages.mu.Unlock()
	for message, b := range owed {
		h.messages.tell(ctx, slog.LevelWarn, message, b)
	}
}

func plainAttrs(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = plainAttr(a)
	}
	return out
}

// oneLine joins the lines of an error, as errors.Join and lists of mistakes have them.
func oneLine(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		if b.Len() > mostText {
			break // more is not shown
		}
		switch line = strings.TrimSpace(line); {
		case line == "":
			continue
		case strings.HasSuffix(b.String(), ":"):
			b.WriteString(" ")
		case b.Len() > 0:
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return b.String()
}

// plainAttr bounds text, errors and lists of text; other values are ours.
func plainAttr(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(plain.Clip(a.Value.String(), mostText))
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			a.Value = slog.StringValue(plain.Clip(plain.Cause(oneLine(v.Error())), mostText))
		case []string:
			short := make([]string, 0, len(v))
			for _, s := range v[:min(len(v), 32)] {
				short = append(short, plain.Clip(s, mostText/8))
			}
			a.Value = slog.AnyValue(short)
		}
	default:
	}
	return a
}
