package issuance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/server/fault"
)

// brokenLog is a log whose follower loses the signer after each page.
type brokenLog struct {
	pages [][]*api.LogRecord
	asked []uint64 // where each reading began
}

func (l *brokenLog) Authority(context.Context) (*api.AuthorityResponse, error) {
	resp := &api.AuthorityResponse{}
	for _, p := range l.pages {
		resp.LogSize += uint64(len(p))
	}
	return resp, nil
}

func (l *brokenLog) ReadLog(ctx context.Context, from uint64, follow bool, each func(*api.LogRecord) error) error {
	l.asked = append(l.asked, from)
	for _, p := range l.pages {
		if p[len(p)-1].GetSequence() < from {
			continue
		}
		for _, r := range p {
			if err := each(r); err != nil {
				return err
			}
		}
		if follow {
			return errors.New("the signer ended")
		}
	}
	if follow {
		<-ctx.Done()
	}
	return ctx.Err()
}

func TestTheLogIsFollowedOnAfterTheSignerEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const agent = "spiffe://mesh.example/signet/agent/a"
		record := func(sequence uint64, kind api.RecordKind, serial string) *api.LogRecord {
			return &api.LogRecord{
				Sequence: sequence, Kind: kind, Serial: serial, SpiffeId: agent, Requester: agent, Profile: api.Profile_PROFILE_AGENT,
				Time: timestamppb.Now(), NotAfter: timestamppb.New(time.Now().Add(time.Hour)),
			}
		}
		l := &brokenLog{pages: [][]*api.LogRecord{
			{record(1, api.RecordKind_RECORD_KIND_RESERVED, "a"), record(2, api.RecordKind_RECORD_KIND_RESERVED, "b"), record(3, api.RecordKind_RECORD_KIND_RESERVED, "c")},
			{record(4, api.RecordKind_RECORD_KIND_ISSUED, "a"), record(5, api.RecordKind_RECORD_KIND_ABANDONED, "b")},
		}}
		i := NewLog(l, time.Now, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- i.Run(ctx) }()
		if err := i.CaughtUp(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // for the third reading, which waits
		synctest.Wait()
		if want := []uint64{1, 4, 6}; !slices.Equal(l.asked, want) {
			t.Errorf("it was read from %d, want %d", l.asked, want)
		}
		if n, last := i.HeldBy(agent); n != 1 || !last.Equal(i.Of("a").GetNotAfter().AsTime()) {
			t.Errorf("%d held, the last until %s", n, last)
		}
		if left := i.Orphans(time.Now()); len(left) != 0 {
			t.Errorf("orphans of a moment ago: %v", left)
		}
		if left := i.Orphans(time.Now().Add(2 * orphanAge)); len(left) != 1 || left[0].GetSerial() != "c" {
			t.Errorf("orphans: %v", left)
		}
		time.Sleep(2 * time.Hour)
		if n, _ := i.HeldBy(agent); n != 0 {
			t.Errorf("%d held after their end", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWhoWaitsForALogThatCannotBeReadIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told strings.Builder
		l := NewLog(unreadableLog{}, time.Now, slog.New(slog.NewTextHandler(&told, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) }) // ends by cancel
		if err := l.CaughtUp(ctx); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "record 0 of 3") {
			t.Error(err)
		}
		cancel()
		running.Wait()
		if n := strings.Count(told.String(), "level=WARN"); n < 2 || n > 10 || !strings.Contains(told.String(), "a damaged page") {
			t.Errorf("%d lines: %s", n, told.String())
		}
	})
}

// unreadableLog has records, and gives none of them.
type unreadableLog struct{}

func (unreadableLog) Authority(context.Context) (*api.AuthorityResponse, error) {
	return &api.AuthorityResponse{LogSize: 3}, nil
}

func (unreadableLog) ReadLog(context.Context, uint64, bool, func(*api.LogRecord) error) error {
	return errors.New("a damaged page")
}

func TestTheHistoryEndsWithWhoeverItIsFor(t *testing.T) {
	l := &brokenLog{pages: [][]*api.LogRecord{{
		{Sequence: 1, Kind: api.RecordKind_RECORD_KIND_RESERVED, Serial: "a"}, {Sequence: 2, Kind: api.RecordKind_RECORD_KIND_ISSUED, Serial: "a"}, {Sequence: 3, Kind: api.RecordKind_RECORD_KIND_ISSUED, Serial: "b"},
	}}}
	i := NewLog(l, time.Now, nil)
	left := errors.New("the operator left")
	given := 0
	if err := i.History(t.Context(), func(*api.Cert) error { given++; return left }); !errors.Is(err, left) || given != 1 {
		t.Errorf("%d certificates, %v", given, err)
	}
}

// gatedLog is a log of certificates of one agent, of which each record comes when the test lets it.
type gatedLog struct {
	agent string
	size  uint64
	let   chan struct{}
}

func (l gatedLog) Authority(context.Context) (*api.AuthorityResponse, error) {
	return &api.AuthorityResponse{LogSize: l.size}, nil
}

func (l gatedLog) ReadLog(ctx context.Context, from uint64, _ bool, each func(*api.LogRecord) error) error {
	for n := from; ; n++ {
		select {
		case <-l.let:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := each(&api.LogRecord{
			Sequence: n, Kind: api.RecordKind_RECORD_KIND_ISSUED, Serial: fmt.Sprint(n), Requester: l.agent,
			NotAfter: timestamppb.New(time.Now().Add(time.Hour)),
		}); err != nil {
			return err
		}
	}
}

// Records are counted from 1: the last one, which has the newest certificate, has the
// number of the log's size.
func TestWhoWaitsForTheLogHasSeenItsLastRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 3
		log := gatedLog{agent: "spiffe://mesh.example/signet/agent/a", size: size, let: make(chan struct{})}
		l := NewLog(log, time.Now, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = l.Run(ctx) }) // ends by cancel
		held := make(chan int32, 1)
		running.Go(func() {
			if err := l.CaughtUp(ctx); err != nil {
				t.Error(err)
			}
			n, _ := l.HeldBy(log.agent)
			held <- n
		})
		for range size {
			select {
			case n := <-held:
				t.Fatalf("after %d of %d records nothing is waited for", n, size)
			case <-time.After(time.Second): // of the bubble
			}
			log.let <- struct{}{}
		}
		if n := <-held; n != size {
			t.Errorf("%d of %d certificates are known", n, size)
		}
		cancel()
		running.Wait()
	})
}

// Whichever kind of record each thousandth is.
func TestWhatIsKeptOfTheLogIsWhatIsAlive(t *testing.T) {
	const agent, all = "spiffe://mesh.example/signet/agent/a", 2048
	for first := range uint64(2) { // reservations have the odd numbers or the even ones
		now := time.Now()
		l := NewLog(&brokenLog{}, func() time.Time { return now }, nil)
		for n := range uint64(all) {
			if n == all/2+1 {
				now = now.Add(2 * time.Hour)
			}
			r := &api.LogRecord{
				Sequence: n + 1, Kind: api.RecordKind_RECORD_KIND_RESERVED, SpiffeId: agent, Profile: api.Profile_PROFILE_AGENT,
				Time: timestamppb.New(now), NotAfter: timestamppb.New(now.Add(time.Hour)),
			}
			r.Serial = fmt.Sprint((n + first) / 2)
			if (n+first)%2 == 1 {
				r.Kind = api.RecordKind_RECORD_KIND_ISSUED
			}
			l.take(r)
		}
		if len(l.live) > all/4 || len(l.open) > 1 || len(l.own) != 1 {
			t.Errorf("%d certificates, %d reservations and %d agents are kept", len(l.live), len(l.open), len(l.own))
		}
		if own := l.NewestOf(agent); !own.Renewed || !own.Issued.Equal(now) || !own.End.Equal(now.Add(time.Hour)) {
			t.Errorf("the agent's newest: %+v", own)
		}
		if own := l.NewestOf(agent + "b"); own != (Newest{}) {
			t.Errorf("of an agent that has none: %+v", own)
		}
	}
}

func TestTheHistoryHasEachCertificateAsItIsNow(t *testing.T) {
	now := time.Now()
	record := func(n uint64, kind api.RecordKind, serial string, end time.Time) *api.LogRecord {
		return &api.LogRecord{Sequence: n, Kind: kind, Serial: serial, NotAfter: timestamppb.New(end)}
	}
	later, before := now.Add(time.Hour), now.Add(-time.Hour)
	l := NewLog(&brokenLog{pages: [][]*api.LogRecord{{
		record(1, api.RecordKind_RECORD_KIND_RESERVED, "ended", before), record(2, api.RecordKind_RECORD_KIND_ISSUED, "ended", before),
		record(3, api.RecordKind_RECORD_KIND_RESERVED, "lost", later), record(4, api.RecordKind_RECORD_KIND_RESERVED, "given up", later),
		record(5, api.RecordKind_RECORD_KIND_ABANDONED, "given up", later),
		record(6, api.RecordKind_RECORD_KIND_RESERVED, "good", later), record(7, api.RecordKind_RECORD_KIND_ISSUED, "good", later),
	}}}, func() time.Time { return now }, nil)
	var got []string
	if err := l.History(t.Context(), func(c *api.Cert) error {
		got = append(got, c.GetSerial()+" "+c.GetState().String())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"ended EXPIRED", "good ISSUED", "given up RESERVED", "lost RESERVED"}; !slices.Equal(got, want) {
		t.Errorf("it has %q, want %q", got, want)
	}
}
