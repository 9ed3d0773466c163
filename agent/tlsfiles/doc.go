// Package tlsfiles reads certificates, keys and authorities from files of the host for one
// proxy, and reads them again when they change.
//
// It owns which files a proxy may have (folders that the host's operator names for it, and
// nothing that leads out of them), what a file must be to be taken (nobody else can change
// it, or read a key; what is in it parses, fits together and has not ended), and that what
// was good stays until something better is there. It must not know what a mesh is, or who
// the proxy is to the servers.
//
// The main types are [Dir], [Files], and its [State]. A key leaves this package in a Secret
// alone: no error, log or report has anything of what a file contains.
//
// # Concurrency
//
// Files.Run owns all reading, in one goroutine: a file system that hangs keeps nobody else
// waiting. The other methods may be called from any.
package tlsfiles
