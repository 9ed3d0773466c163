package attestation

// ForceLegacy makes a behave as on a kernel without SO_PEERPIDFD.
func ForceLegacy(a *Attestor) *Attestor {
	a.testOnlyLegacy = true
	return a
}

// KnownHashes returns how many programs' hashes are kept.
func KnownHashes(a *Attestor) int {
	a.hashes.mu.Lock()
	defer a.hashes.mu.Unlock()
	return len(a.hashes.known)
}

// ParseStart reads the start time out of /proc/<pid>/stat.
func ParseStart(raw []byte) (start uint64, err error) {
	var im image
	err = im.parseStat(raw)
	return im.start, err
}

// EffectiveID reads a line of /proc/<pid>/status.
func EffectiveID(status []byte, key string) (uint32, error) { return effectiveID(status, key) }

// SameLivePID is what SameProcess does without pidfs.
var SameLivePID = sameLivePID
