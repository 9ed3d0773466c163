package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

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

// printError writes what happened, and what to do about it.
func printError(w io.Writer, command string, err error) {
	msg, hint := err.Error(), ""
	if e, ok := errors.AsType[*exitError](err); ok {
		hint = e.hint
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		msg = s.Message()
	}
	msg = plain.Cause(msg)
	if hint == "" && exitCode(err) == exitUsage {
		hint = "see " + command + " --help"
	}
	lines := strings.Split(strings.TrimSpace(msg), "\n")
	for i, line := range lines {
		lines[i] = printable(strings.ReplaceAll(line, "\t", "    "))
	}
	_, _ = fmt.Fprintf(w, "signet: %s\n", strings.Join(lines, "\n")) // stderr is gone: nobody to tell
	if hint != "" {
		_, _ = fmt.Fprintf(w, "hint: %s\n", hint)
	}
}
