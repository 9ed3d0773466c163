package issuance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/server/fault"
	"signet.example/store"
)

// gatedMarks are written when the test lets them be.
type gatedMarks struct {
	begun, let chan struct{}

	mu     sync.Mutex
	writes int
	kept   uint64
	err    error
}

func (m *gatedMarks) LogMark(context.Context) (store.LogMark, error) { return store.LogMark{}, nil }

func (m *gatedMarks) PutLogMark(_ context.Context, p store.LogMark) error {
	m.begun <- struct{}{}
	<-m.let
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.err == nil {
		m.kept = p.Sequence
	}
	return m.err
}

func (m *gatedMarks) ResetLogMark(context.Context, string, string, store.LogMark) error { return nil }

func (m *gatedMarks) state() (writes int, kept uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes, m.kept
}

func TestOneWriteKeepsWhatAllHaveSeenWhoWaitForIt(t *testing.T) {
	marks := &gatedMarks{begun: make(chan struct{}), let: make(chan struct{})}
	w, err := NewWitness(t.Context(), nil, marks, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	note := func(n uint64) {
		calls.Go(func() {
			if err := w.note(t.Context(), &api.LogPosition{Sequence: n}); err != nil {
				t.Error(err)
			}
			if _, kept := marks.state(); kept < n {
				t.Errorf("certificates up to record %d go out, and %d is kept", n, kept)
			}
		})
	}
	note(1)
	<-marks.begun // its write is under way
	const most = 100
	for n := range uint64(most) {
		note(most - n)
	}
	for { // until all have shown what they have seen; none of them waits for the disk to do so
		time.Sleep(time.Millisecond)
		w.mu.Lock()
		shown := w.shown.Sequence
		w.mu.Unlock()
		if shown == most {
			break
		}
	}
	if w.position() != nil {
		t.Errorf("a call that begins is told of %v, which is not durable", w.position())
	}
	marks.let <- struct{}{}
	<-marks.begun
	marks.let <- struct{}{}
	calls.Wait()
	if n, kept := marks.state(); n != 2 || kept != most {
		t.Errorf("%d writes, the last of %d", n, kept)
	}
	write := func(n uint64) error {
		done := make(chan error)
		go func() { done <- w.note(t.Context(), &api.LogPosition{Sequence: n}) }()
		<-marks.begun
		marks.let <- struct{}{}
		return <-done
	}
	marks.err = errors.New("the disk is full")
	if err := write(most + 1); !errors.Is(err, fault.Unavailable) || w.position().GetSequence() != most {
		t.Errorf("what is not durable goes out: %v, seen %v", err, w.position())
	}
	marks.err = nil
	if err := write(most + 1); err != nil || w.position().GetSequence() != most+1 {
		t.Errorf("after the disk has room again: %v, seen %v", err, w.position())
	}
}

// kept are marks in memory.
type kept struct {
	mark   store.LogMark
	resets []string
}

func (k *kept) LogMark(context.Context) (store.LogMark, error) { return k.mark, nil }

func (k *kept) PutLogMark(_ context.Context, m store.LogMark) error {
	k.mark = m
	return nil
}

func (k *kept) ResetLogMark(_ context.Context, actor, detail string, m store.LogMark) error {
	k.mark, k.resets = m, append(k.resets, actor+": "+detail)
	return nil
}

// ends is a signer whose log ends at head, and has only that. It refuses what was seen
// otherwise, and before that calls refusing.
type ends struct {
	head     *api.LogPosition
	refusing func()
	asked    int // to issue
}

func (p *ends) has(seen *api.LogPosition) error {
	if seen == nil || proto.Equal(seen, p.head) {
		return nil
	}
	if p.refusing != nil {
		p.refusing()
	}
	return status.Error(codes.FailedPrecondition, "records are missing")
}

func (p *ends) Issue(_ context.Context, req *api.SignRequest) (*api.SignResponse, error) {
	p.asked++
	if err := p.has(req.GetSeen()); err != nil {
		return nil, err
	}
	return &api.SignResponse{Log: p.head, Results: []*api.SignResult{{}}}, nil
}

func (p *ends) Authority(_ context.Context, req *api.AuthorityRequest) (*api.AuthorityResponse, error) {
	if err := p.has(req.GetSeen()); err != nil {
		return nil, err
	}
	return &api.AuthorityResponse{Log: p.head}, nil
}

func (*ends) ReadLog(context.Context, uint64, bool, func(*api.LogRecord) error) error { return nil }

func at(sequence uint64, hash byte) *api.LogPosition {
	return &api.LogPosition{Sequence: sequence, Hash: bytes.Repeat([]byte{hash}, 32)}
}

func witnessOf(t *testing.T, p Process, m Marks, accept string) *Witness {
	t.Helper()
	w, err := NewWitness(t.Context(), p, m, accept, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestNothingIsIssuedByALogThatLacksWhatWasSeenUnlessTheOperatorAcceptsThatLoss(t *testing.T) {
	seen := markOf(at(9, 9))
	for name, head := range map[string]*api.LogPosition{"shorter": at(5, 5), "another one": at(9, 1), "longer": at(12, 2)} {
		m := &kept{mark: seen}
		_, err := witnessOf(t, &ends{head: head}, m, "").Issue(t.Context(), nil)
		gone, ok := errors.AsType[*RecordsGone](err)
		if !ok || !errors.Is(err, fault.Unavailable) || m.mark.Sequence != 9 {
			t.Fatalf("%s: %v, the mark is %d", name, err, m.mark.Sequence)
		}
		if got := StartFix(fmt.Errorf("start: %w", err)).Error(); !strings.Contains(got, "--accept-log "+gone.Code()) {
			t.Errorf("%s: a start ends with %q", name, got)
		}
		w := witnessOf(t, &ends{head: head}, m, gone.Code())
		if _, err := w.Authority(t.Context()); err != nil || len(m.resets) != 1 || m.mark.Sequence != head.GetSequence() {
			t.Errorf("%s, accepted: %v, %v, the mark is %d", name, err, m.resets, m.mark.Sequence)
		}
		other := &kept{mark: markOf(at(9, 8))}
		if _, err := witnessOf(t, &ends{head: head}, other, gone.Code()).Issue(t.Context(), nil); err == nil || len(other.resets) > 0 {
			t.Errorf("%s: the acceptance of one loss was taken for another", name)
		}
	}
	if err := errors.New("another"); !errors.Is(StartFix(err), err) {
		t.Error("another error of a start is another one")
	}
}

func TestASignerThatNoLongerSaysHowFarItsLogGoesIsNotBelieved(t *testing.T) {
	p := &ends{}
	if _, err := witnessOf(t, p, &kept{}, "").Issue(t.Context(), nil); err != nil {
		t.Errorf("one of which nothing was ever seen: %v", err)
	}
	if err := witnessOf(t, p, &kept{mark: markOf(at(1, 1))}, "").note(t.Context(), nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("one that has said it before: %v", err)
	}
}

// Between a call and its refusal others may have moved what was seen: then the call is
// made again, and not for ever.
func TestACallIsMadeAgainWhenWhatWasSeenHasMovedAndAFewTimesOnly(t *testing.T) {
	m := &kept{mark: markOf(at(9, 9))}
	p := &ends{head: at(100, 1)}
	w := witnessOf(t, p, m, "")
	for _, moves := range []int{1, mostRefusals} {
		p.asked = 0
		p.refusing = func() {
			next := m.mark.Sequence + 1
			if p.asked == moves {
				p.head = at(next, 7)
			}
			if err := w.note(t.Context(), at(next, 7)); err != nil {
				t.Error(err)
			}
		}
		_, err := w.Issue(t.Context(), nil)
		if moves == mostRefusals && (status.Code(err) != codes.FailedPrecondition || p.asked != mostRefusals) || moves < mostRefusals && (err != nil || p.asked != moves+1) {
			t.Errorf("it moved %d times: asked %d times, %v", moves, p.asked, err)
		}
		p.head = at(100, 1)
	}
}

// said is a signer that has something to say of its authority, too.
type said struct {
	*ends

	authority *api.AuthorityResponse
}

func (s said) Authority(ctx context.Context, req *api.AuthorityRequest) (*api.AuthorityResponse, error) {
	resp, err := s.ends.Authority(ctx, req)
	if err == nil {
		s.authority.Log = resp.GetLog()
		return s.authority, nil
	}
	return nil, err
}

func TestASignerThatIsOnlyAskedIsHeldToWhatWasSeen(t *testing.T) {
	ca, key := newCA(t), newKey(t)
	p := said{&ends{head: at(5, 5)}, ca.says(3, key)}
	for name, seen := range map[string]*api.LogPosition{"nothing": nil, "its end": at(5, 5)} {
		if roots, err := Ask(t.Context(), p, markOf(seen), ""); err != nil || roots.Set.Number != 3 {
			t.Errorf("%s was seen: root set %d, %v", name, roots.Set.Number, err)
		}
	}
	lost := markOf(at(9, 9))
	_, err := Ask(t.Context(), p, lost, "")
	gone, ok := errors.AsType[*RecordsGone](err)
	if !ok || !strings.Contains(err.Error(), "--accept-log "+gone.Code()) {
		t.Fatalf("a log that lacks what was seen: %v", err)
	}
	if _, err := Ask(t.Context(), p, lost, gone.Code()); err != nil {
		t.Errorf("as the operator accepts it: %v", err)
	}
	p.authority.Issuing = []byte("no certificate")
	if _, err := Ask(t.Context(), p, markOf(at(5, 5)), ""); err == nil {
		t.Error("an authority that does not verify was taken")
	}
}
