package agent_test

import (
	"os"
	"testing"

	"signet.example/test/parts"
)

// A token is not spent where nothing can be kept of the join; a host that has joined
// keeps nothing new, and comes back.
func TestAFullDiskUnderDataDirSpendsNoTokenAndKeepsNoHostAway(t *testing.T) {
	f := newFakeServer(t)
	h := newHost(t, f)
	if err := os.Mkdir(h.cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	parts.Disk(t, h.cfg.DataDir, "64k")
	free := parts.FillDisk(t, h.cfg.DataDir)
	h.token(f.token())
	wantError(t, h.run(), "data_dir: ", "no space left on device")
	f.mu.Lock()
	if f.attests != 0 || len(f.tokens) != 1 {
		t.Errorf("%d attempts to join, %d tokens left", f.attests, len(f.tokens))
	}
	f.mu.Unlock()
	free()
	if err := h.run(); err != nil {
		t.Fatalf("when there is room: %v", err)
	}
	defer parts.FillDisk(t, h.cfg.DataDir)()
	h.cfg.TokenFile = ""
	if err := h.run(); err != nil {
		t.Errorf("a host that has joined: %v", err)
	}
}
