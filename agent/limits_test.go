package agent

import "testing"

// A connection and its pidfd are two files, and each socket has a tally of its own.
func TestLocalPeersCannotTakeAllFiles(t *testing.T) {
	host, err := listen(t.Context(), Config{SocketDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer host.close()
	sockets := 0
	for _, l := range host.all() {
		if *l != nil {
			sockets++
		}
	}
	if sockets < 4 || newTally().most != mostConns(openFiles(), sockets) {
		t.Errorf("the tally of one of %d sockets is %+v", sockets, newTally().most)
	}
	for _, files := range []uint64{64, 256, 1024, 4096, 1 << 20} {
		m := mostConns(files, sockets)
		if taken := 2 * sockets * m.all; taken > int(files/2) { //nolint:gosec // a few thousand
			t.Errorf("of %d files, local peers may take %d", files, taken)
		}
		if m.uid > m.all/4 || m.pid > m.uid || m.pid < 1 {
			t.Errorf("of %d files: %+v: one user starves the others", files, m)
		}
	}
	if m := mostConns(1<<20, sockets); m != (most{maxConnsPerPID, maxConnsPerUID, maxConns}) {
		t.Errorf("with many files: %+v", m)
	}
}
