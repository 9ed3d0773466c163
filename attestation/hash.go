package attestation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// maxHashed is the largest program that is hashed: a sparse file of a
	// terabyte is quickly made and long read.
	maxHashed = 1 << 30
	// maxHashes kept for a user, and maxUsers. A host runs few programs that hold
	// identities.
	maxHashes = 64
	maxUsers  = 256
)

// hashesByUser has the hashes of each user apart: a user who starts large programs, or
// many, delays no other user.
type hashesByUser struct {
	mu sync.Mutex
	by map[uint32]*hashes // guarded by mu
}

func (h *hashesByUser) user(uid uint32) *hashes {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known, ok := h.by[uid]; ok {
		return known
	}
	if h.by == nil {
		h.by = make(map[uint32]*hashes)
	}
	for old := range h.by { // any one: its files are read again when needed
		if len(h.by) < maxUsers {
			break
		}
		delete(h.by, old)
	}
	fresh := &hashes{}
	h.by[uid] = fresh
	return fresh
}

// fileVersion is a file in one state: content cannot change without a new
// ctime, which no user can set.
type fileVersion struct {
	inode
	size         int64
	mtime, ctime unix.Timespec
}

// hashes keeps the SHA-256 of programs by file and state, and reads one file
// at a time: two hundred Envoys that start at once are one reading.
type hashes struct {
	mu      sync.Mutex // guards known
	known   map[fileVersion]string
	reading reader
}

// reader is a lock that a context can end the wait for.
type reader struct {
	once sync.Once
	slot chan struct{}
}

func (r *reader) lock(ctx context.Context) error {
	r.once.Do(func() { r.slot = make(chan struct{}, 1) })
	select {
	case r.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *reader) unlock() { <-r.slot }

// of returns the hash of the program exe of p, errNoHash where it has none.
func (h *hashes) of(ctx context.Context, p *proc, exe inode) (string, error) {
	f, st, err := p.openExe(exe)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	version := versionOf(st)
	if sum, ok := h.get(version); ok {
		return sum, nil
	}
	if err := h.reading.lock(ctx); err != nil {
		return "", fmt.Errorf("wait to hash the peer's program: %w", err)
	}
	defer h.reading.unlock()
	if sum, ok := h.get(version); ok { // who held the lock may have read this very file
		return sum, nil
	}
	sum, err := hashFile(ctx, f, version)
	if err == nil {
		h.put(version, sum)
	}
	return sum, err
}

func versionOf(st unix.Stat_t) fileVersion {
	return fileVersion{inode: inode{uint64(st.Dev), st.Ino}, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

func (h *hashes) get(v fileVersion) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum, ok := h.known[v]
	return sum, ok
}

func (h *hashes) put(v fileVersion, sum string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known == nil {
		h.known = make(map[fileVersion]string)
	}
	for old := range h.known { // any one: it is read again when needed
		if len(h.known) < maxHashes {
			break
		}
		delete(h.known, old)
	}
	h.known[v] = sum
}

// hashFile reads f, which must be in the state v before and after.
func hashFile(ctx context.Context, f *os.File, v fileVersion) (string, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, contextReader{ctx, io.LimitReader(f, maxHashed)}); err != nil {
		return "", fmt.Errorf("hash the peer's program: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", fmt.Errorf("hash the peer's program: %w", err)
	}
	if versionOf(st) != v {
		return "", errors.New("hash the peer's program: it was changed while being read")
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// contextReader ends a long reading with its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // lives for one io.Copy
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
