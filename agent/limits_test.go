package agent

import "testing"

// A connection and its pidfd are two files, and there are two sockets.
func TestLocalPeersCannotTakeAllFiles(t *testing.T) {
	for _, files := range []uint64{256, 1024, 4096, 1 << 20} {
		m := mostConns(files)
		if taken := 2 * 2 * m.all; taken > int(files/2) { //nolint:gosec // a few thousand
			t.Errorf("of %d files, local peers may take %d", files, taken)
		}
		if m.uid > m.all/4 || m.pid > m.uid || m.pid < 1 {
			t.Errorf("of %d files: %+v: one user starves the others", files, m)
		}
	}
	if m := mostConns(1 << 20); m != (most{maxConnsPerPID, maxConnsPerUID, maxConns}) {
		t.Errorf("with many files: %+v", m)
	}
}
