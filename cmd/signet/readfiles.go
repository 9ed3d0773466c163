package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// maxSource bounds one input file; what reads it has its own limits.
const maxSource = 16 << 20

// regular reports whether what was found in a folder is a file, also by a link: a pipe would
// keep a walk for ever, and a device has no end. One that is named by itself may be either.
func regular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// readBounded reads a file that is not too large.
func readBounded(ctx context.Context, path string) ([]byte, error) {
	return bounded(ctx, path, func() ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // only read
		return io.ReadAll(io.LimitReader(f, maxSource+1))
	})
}

// readInput reads standard input, the same way.
func readInput(c *cobra.Command) ([]byte, error) {
	return bounded(c.Context(), "standard input", func() ([]byte, error) { return io.ReadAll(io.LimitReader(c.InOrStdin(), maxSource+1)) })
}

// bounded waits no longer than ctx: nothing else ends the opening of a pipe into which nobody
// writes.
func bounded(ctx context.Context, name string, read func() ([]byte, error)) ([]byte, error) {
	type result struct {
		content []byte
		err     error
	}
	done := make(chan result, 1)
	go func() { // ends with the process at the latest, which ends with ctx
		content, err := read()
		done <- result{content, err}
	}()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("read %s: %w", name, ctx.Err())
	case r := <-done:
		if r.err == nil && len(r.content) > maxSource {
			r.err = fmt.Errorf("%s is larger than %d MiB", name, maxSource>>20)
		}
		return r.content, r.err
	}
}
