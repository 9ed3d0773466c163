// Package join is how a host comes to its first SVID, and is known again after a restart.
//
// It owns the host key and what is kept beside it in data_dir, by what a host joins (a
// token, or evidence of its own), whom it takes for its server (by a pin, then by the root
// sets that are signed), and the connections on which that is so. It must not know what is
// said over them once the host has joined, nor whom the SVIDs are for.
//
// Main types in order: a [Dir] is the folder, [Ways] are by what a host may join. An
// [Enrolment] made by [New] enters once and attests again later; it is an upstream.Standing.
// A [Line] is the connection for everything else.
//
// # Concurrency
//
// Enter is called once, before the rest; the other methods are safe for any number of
// goroutines. Enrolment.mu guards what is kept on disk, and is held over its writing.
package join
