package check

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What keeps certificates from being issued is said by its cause: a signer that does not
// answer is another matter than a disk that is full.
func TestThatNothingIsIssuedIsFoundUntilSomethingIs(t *testing.T) {
	good := Signer{Separate: true, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(7 * 24 * time.Hour)}
	for what, c := range map[string]struct {
		change    func(*Signer)
		id, cause string
	}{
		"all is well":               {func(*Signer) {}, "", ""},
		"the signer's disk is full": {func(s *Signer) { s.Failed, s.FailedAt = errors.New("no space left on device"), noon }, findNotIssued, "no certificate came of the last that were asked for, at 2026-11-21T12:00:00Z: no space left on device"},
		"the server's disk is full": {func(s *Signer) { s.Err, s.NotKept = errors.New("database or disk is full"), true }, findNotIssued, "database or disk is full"},
		"no signer answers":         {func(s *Signer) { s.Err, s.Failed = errors.New("connection refused"), errors.New("no answer") }, findSigner, "the signer does not answer: connection refused"},
		"it is not there": {func(s *Signer) {
			s.Err = fmt.Errorf("ask: %w", status.Error(codes.Unavailable, `no answer: connection error: desc = "transport: Error while dialing: dial unix /s: connect: connection refused"`))
		}, findSigner, "the signer does not answer: ask: no answer: dial unix /s: connect: connection refused"},
		"records are gone": {func(s *Signer) {
			s.Err, s.Gone, s.Failed = errors.New("nothing is issued"), "put it back", errors.New("x")
		}, findLogCut, "nothing is issued"},
	} {
		l := Look{Now: noon, Signer: good}
		c.change(&l.Signer)
		list := l.signer()
		if c.id == "" && len(list) == 0 {
			continue
		}
		if len(list) != 1 || list[0].GetId() != c.id || !strings.Contains(list[0].GetCause(), c.cause) {
			t.Errorf("%s: %v", what, list)
		}
	}
}
