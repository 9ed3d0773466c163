package child

import (
	"bytes"
	"io"
	"sync"
)

// Tail passes on what a child writes and keeps the end of it for an error.
type Tail struct {
	to   io.Writer
	mu   sync.Mutex
	last []byte
}

// NewTail returns a Tail that passes on to this writer.
func NewTail(to io.Writer) *Tail { return &Tail{to: to} }

// Write never fails: a full log must not stop the child.
func (t *Tail) Write(b []byte) (int, error) {
	const most = 2 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.to.Write(b) // see above
	t.last = append(t.last, b...)
	if n := len(t.last); n > most {
		t.last = bytes.Clone(t.last[n-most:])
	}
	return len(b), nil
}

// Text is what was written last, on one line.
func (t *Tail) Text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.Join(bytes.Fields(t.last), []byte(" ")))
}
