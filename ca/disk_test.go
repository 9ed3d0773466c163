package ca_test

import (
	"bytes"
	"sync"

	"golang.org/x/sys/unix"
)

// memDisk is a file in memory that can be made to fail.
type memDisk struct {
	mu      sync.Mutex
	content []byte
	space   int // bytes until ENOSPC, if limited
	limited bool
	syncErr error
	syncs   int
}

func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.NewReader(d.content).ReadAt(p, off)
}

// WriteAt writes as much as there is space for, like a real one.
func (d *memDisk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(p)
	if d.limited {
		n = min(n, d.space)
	}
	if end := int(off) + n; end > len(d.content) {
		d.content = append(d.content, make([]byte, end-len(d.content))...)
	}
	copy(d.content[off:], p[:n])
	if n < len(p) {
		return n, unix.ENOSPC
	}
	if d.limited {
		d.space -= n
	}
	return n, nil
}

func (d *memDisk) Truncate(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.content = d.content[:size]
	return nil
}

func (d *memDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	return d.syncErr
}

func (d *memDisk) Close() error { return nil }

func (d *memDisk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}
