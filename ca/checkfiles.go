package ca

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Check looks at what Init made as OpenAuthority and OpenLog do, writes nothing, and
// returns the trust domain. The signer that uses it may run meanwhile.
func Check(dir string, password []byte, profiles Profiles) (spiffeid.TrustDomain, error) {
	a := &Authority{dir: dir, clock: time.Now, log: slog.New(slog.DiscardHandler), password: password, check: true}
	if err := a.open(); err != nil {
		return a.td, fmt.Errorf("open authority %s: %w", dir, err)
	}
	return a.td, errors.Join(profiles.Check(a), checkLog(LogPath(dir)))
}

// checkLog reads the whole log and verifies its chain. Its end may be incomplete:
// a signer that runs is writing it, and one that was killed is repaired by the next.
func checkLog(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0) // as an opening needs it
	if err != nil {
		return fmt.Errorf("open issuance log: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	l := &Log{ledger: newLedger()}
	if err := l.recover(bufio.NewReaderSize(f, maxLine)); err != nil {
		return fmt.Errorf("open issuance log %s: %w", path, err)
	}
	return nil
}
