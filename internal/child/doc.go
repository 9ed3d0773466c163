// Package child starts the processes that Signet runs beside itself and ends
// them: a child has exactly what it is given, and does not outlive its parent.
// It must not know what the processes do.
//
// # What a child has
//
// A [Spec] says it: program, arguments, environment, descriptors, folder, umask,
// user and limits. Nothing else is inherited. However the parent got its own
// capabilities (ambient, from its file, as root), a child has none and can gain
// none: no_new_privs, and the effective, permitted, inheritable and ambient sets
// are empty, the bounding set where the parent has CAP_SETPCAP. It is in a session,
// and so in a process group, of its own: signals of a terminal or to the parent's
// group do not reach it.
//
// All of that belongs to a thread in Linux, and a child gets it from the thread
// that forks. So the thread is given the child's privileges before the fork and is
// thrown away after it; privileges.go has the order and the reasons.
//
// # Its end
//
// The kernel kills a child when the thread that started it ends (PDEATHSIG), and
// that thread lives as long as the child does. Sending the signal needs the right
// to: to a child of another user it is sent only where the dying thread has
// CAP_KILL, which Start therefore asks for. Programs of ours call [Confine] first,
// which arms it again, since executing a file with capabilities disarms it; other
// programs with such a file are refused. When a child ends, what is left of its
// process group is killed before it is reaped.
//
// # Concurrency
//
// Start can be called from any goroutine. A Process has one goroutine with a thread
// of its own, which ends with the child, and one more while limits are watched.
package child
