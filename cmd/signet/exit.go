package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/internal/plain"
)

// Exit codes, the same for every command.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDifferent   = 3 // diff found differences, check found violations
	exitUnreachable = 4
	exitDenied      = 5
)

func execute(ctx context.Context, root *cobra.Command) int {
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	return tell(root, c, asInterrupted(ctx, err))
}

// tell writes why a command failed, and returns its exit code.
func tell(root, c *cobra.Command, err error) int {
	var silent *exitError
	if errors.As(err, &silent) && silent.quiet {
		return silent.code
	}
	f := failureOf(c.CommandPath(), err)
	if forPrograms(c) {
		f.printJSON(root.ErrOrStderr())
	} else {
		f.print(root.ErrOrStderr())
	}
	return f.ExitCode
}

// exitError carries an exit code and a hint for the user.
type exitError struct {
	err   error
	code  int
	hint  string
	quiet bool // what is to be said was printed already
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usage(err error) error {
	return &exitError{err: err, code: exitUsage}
}

func hinted(err error, hint string) error {
	return &exitError{err: err, code: exitFailed, hint: hint}
}

// different is the silent end of a command that found what it looks for.
func different() error {
	return &exitError{err: errors.New("differences found"), code: exitDifferent, quiet: true}
}

func exitCode(err error) int {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return exitUnreachable
	case codes.PermissionDenied, codes.Unauthenticated:
		return exitDenied
	}
	return exitFailed
}

// failure is what is said of an error.
type failure struct {
	Message  string `json:"message"` // of one mistake a line
	Hint     string `json:"hint"`    // what to do; "" where the message says it
	ExitCode int    `json:"exitCode"`
}

// failureOf is that of a command.
func failureOf(command string, err error) failure {
	f := failure{Message: err.Error(), ExitCode: exitCode(err)}
	if e, ok := errors.AsType[*exitError](err); ok {
		f.Hint = e.hint
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		f.Message = s.Message()
	}
	if f.Hint == "" && f.ExitCode == exitUsage {
		f.Hint = "see " + command + " --help"
	}
	lines := strings.Split(strings.TrimSpace(plain.Cause(f.Message)), "\n")
	for i, line := range lines {
		lines[i] = printable(strings.ReplaceAll(line, "\t", "    "))
	}
	f.Message = strings.Join(lines, "\n")
	return f
}

// print writes what happened, and what to do about it.
func (f failure) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "signet: %s\n", f.Message) // stderr is gone: nobody to tell
	if f.Hint != "" {
		_, _ = fmt.Fprintf(w, "hint: %s\n", f.Hint)
	}
}

// printJSON writes the same as one line for programs: the last one, since warnings may stand
// before it.
func (f failure) printJSON(w io.Writer) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(map[string]failure{"error": f}) // as in print
}

// forPrograms reports whether a command was asked for an answer that programs read.
func forPrograms(c *cobra.Command) bool {
	o := c.Flag("output")
	return o != nil && (o.Value.String() == "json" || o.Value.String() == "yaml")
}
