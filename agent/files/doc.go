// Package files keeps identities in credential folders, as the SPIFFE Filesystem Delivery
// standard has them, for programs that read files and speak no Workload API.
//
// It owns where on the host a folder may lie and whose it may be (the host's operator says
// so, an entry only names things), that key and chain are replaced together and never seen
// apart, that nothing of it is on a disk, that a folder goes when its entry does, and which
// program is run after a change, as whom. It must not know how an SVID is asked for, or
// what a server is.
//
// The main types are [Config], what an operator allows; [Root], the folder that all lie
// in; [Folders], which keeps them as the servers say; and [Credentials], what is written.
//
// # Who can change what
//
// A folder belongs to the agent and is open to its owner's group alone; the files in it are
// the owner's. So the owner reads them and can put nothing in their place. Each file is made
// in a folder of the agent's own beside them, whole, and moved into its place: a reader
// that opens one has the old content or the new, whenever the agent is killed.
//
// # Concurrency
//
// Folders.Run owns all of the folders, in one goroutine, and one more for each command that
// is running. Problems may be called from any goroutine.
package files
