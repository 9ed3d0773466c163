// Package decode has the messages of gRPC clients turned into objects within bounds. A
// field of two bytes may become an object of hundreds, and gRPC decodes a message before
// any interceptor is asked who sent it: a bound of its bytes is none of what it costs.
//
// A [Codec] goes over the bytes once, by the fields of the message that they are to be,
// and adds up what the objects would take, without making any. It refuses what would be
// out of proportion to its size or too deep; of what is large, few are decoded at a time.
// Every gRPC server of ours is made by [NewServer]. It must not know what a message is for.
//
// # Concurrency
//
// A Codec is safe for any number of goroutines, as gRPC uses it.
package decode
