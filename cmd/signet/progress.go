package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// progress tells on standard error how far something has come: on a terminal in one line that is
// written over, else in a line for each step.
type progress struct {
	w        io.Writer
	terminal bool
	said     string
}

func newProgress(c *cobra.Command) *progress {
	w := c.ErrOrStderr()
	return &progress{w: w, terminal: isTerminal(w) && os.Getenv("TERM") != "dumb"}
}

// say shows the next step, unless it is the last one still.
func (p *progress) say(text string) {
	switch text = printable(text); {
	case text == p.said:
	case p.terminal:
		_, _ = fmt.Fprint(p.w, "\r\x1b[K"+text) // stderr is gone: nobody to tell
	default:
		_, _ = fmt.Fprintln(p.w, text) // the same
	}
	p.said = text
}

// end takes the line off a terminal.
func (p *progress) end() {
	if p.terminal && p.said != "" {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K") // stderr is gone: nobody to tell
	}
}

// isTerminal reports whether people read what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
