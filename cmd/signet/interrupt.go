package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endsWithin is how long a command that is interrupted has to say what it did. More time has
// none: not one that works without asking anybody, as import does, nor one whose output
// nobody reads.
const endsWithin = time.Second

var errInterrupted = errors.New("interrupted")

// untilInterrupted returns what work does, unless that goes on for longer than endsWithin
// after ctx has ended: then it is not done, and goes on until the process ends.
func untilInterrupted(ctx context.Context, work func() int) (code int, done bool) {
	result := make(chan int, 1)
	go func() { result <- work() }() // ends with the process at the latest
	select {
	case code := <-result:
		return code, true
	case <-ctx.Done():
	}
	late := time.NewTimer(endsWithin)
	defer late.Stop()
	select {
	case code := <-result:
		return code, true
	case <-late.C:
		return exitFailed, false
	}
}

// interruptible reports whether a command is one that somebody waits for. The others are
// processes that end in an order of their own, which takes as long as it takes.
func interruptible(c *cobra.Command) bool {
	for c.HasParent() && c.Parent().HasParent() {
		c = c.Parent()
	}
	return c.GroupID == "config" || c.GroupID == "look"
}

// asInterrupted is the error of a command whose context has ended, if that is all that it says.
func asInterrupted(ctx context.Context, err error) error {
	_, more := errors.AsType[*exitError](err)
	if ctx.Err() == nil || more || !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
		return err
	}
	return errInterrupted
}
