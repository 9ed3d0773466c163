package underway

import (
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
)

// What is counted is bytes, and what is held is buffers. gRPC's own come in five sizes, with
// 1 MiB the next after 32 KiB: a message of 33 KB holds thirty times its size while it waits.
// These are at most twice as large as what is in them.
func init() {
	pool, err := mem.NewBinaryTieredBufferPool(8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
	if err != nil {
		panic(err) // internal error
	}
	experimental.SetDefaultBufferPool(pool)
}
