package fleet

// Shared is a value that all servers of one store have in common: what several of them
// need stands behind it and nowhere else. Alone, a server keeps it in memory ([File]
// does, and remembers it); beside others it is in a database, which writes what differs
// between the old value and the new one.
//
// Values are immutable, and another one is another pointer. It is called from many
// goroutines.
type Shared[T any] interface {
	// Get returns the newest value that is known here, and a channel that is closed when
	// there is a newer one, whoever made it.
	Get() (T, <-chan struct{})
	// Update puts what f makes of the newest value in its place; nobody's Update comes
	// between the two. On return Get has it. f may be called again where another server
	// was faster; it changes nothing and does not call back.
	Update(f func(T) T)
}
