// Package shared is what the parts of a server ask for where servers of one store have
// something in common: the newest of a series of values, and one at a time. What stands
// behind these two interfaces is true for all of them, and no part keeps such a truth
// elsewhere. A server that is alone has it in memory ([Mutex], the Value of internal/watched,
// and [File] where it outlives the server); servers beside others have it in their database.
//
// It must not know what is shared: a part declares its value, which is immutable, and the
// server hands it in.
//
// # Concurrency
//
// All are safe for any number of goroutines.
package shared

import "context"

// Value is the newest of a series of values. These are immutable, and another one is
// another pointer. A database keeps one as rows, writes what differs between the old
// value and the new one, and reads what other servers wrote.
type Value[T any] interface {
	// Get returns the newest value that is known here, and a channel that is closed when
	// there is a newer one, whoever made it. It never waits for another server.
	Get() (T, <-chan struct{})
	// Update puts what f makes of the newest value in its place; nobody's Update comes
	// between the two. On return Get has it. f may be called again where another server
	// was faster; it changes nothing and does not call back.
	Update(f func(T) T)
}

// Lock is held by one goroutine of one server at a time. A server that ends, or cannot
// reach the others any more, has lost it: whatever must not happen twice is refused by
// the store, too.
type Lock interface {
	// Lock returns when nobody else holds it, with what lets go of it, or ctx's error.
	Lock(ctx context.Context) (unlock func(), err error)
}

// Mutex is a Lock within one process.
type Mutex chan struct{}

// NewMutex returns one that nobody holds.
func NewMutex() Mutex { return make(Mutex, 1) }

// Lock implements Lock.
func (m Mutex) Lock(ctx context.Context) (unlock func(), err error) {
	select {
	case m <- struct{}{}:
		return func() { <-m }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
