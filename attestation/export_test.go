package attestation

import "context"

// ForceLegacy makes a behave as on a kernel without SO_PEERPIDFD.
func ForceLegacy(a *Attestor) *Attestor {
	a.testOnlyLegacy = true
	return a
}

// LegacyKernel reports whether the tests run as on a kernel before 6.5.
const LegacyKernel = legacyKernel

// KnownHashes returns how many programs' hashes are kept.
func KnownHashes(a *Attestor) int {
	a.hashes.mu.Lock()
	defer a.hashes.mu.Unlock()
	n := 0
	for _, h := range a.hashes.by {
		n += len(h.known)
	}
	return n
}

// ReadFor behaves as if a program of a user were being read, until done.
func ReadFor(ctx context.Context, a *Attestor, uid uint32) (done func(), err error) {
	reading := &a.hashes.user(uid).reading
	return reading.unlock, reading.lock(ctx)
}

// ParseStart reads the start time out of /proc/<pid>/stat.
func ParseStart(raw []byte) (start uint64, err error) {
	var im image
	err = im.parseStat(raw)
	return im.start, err
}

// SameLivePID is what SameProcess does without pidfs.
var SameLivePID = sameLivePID

// CgroupRoot is where cgroup v2 is mounted, "" for nowhere.
func CgroupRoot() string { return new(Cgroups).root() }
