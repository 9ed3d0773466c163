package admin_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/server/admin"
	"signet.example/server/fault"
)

func TestAListOfDecisionsHasALimit(t *testing.T) {
	d := newDesk(t)
	d.decided = func(f *api.DecisionFilter) ([]*api.Decision, []string) {
		return []*api.Decision{{Id: f.GetSource(), DurationMicros: int64(f.GetLimit())}}, nil
	}
	for limit, want := range map[int32]int64{0: 100, 7: 7, 500: 500} {
		answer, err := d.admin.Decisions(t.Context(), &api.DecisionsListRequest{Filter: &api.DecisionFilter{Source: "shop/web", Limit: limit}})
		if err != nil || answer.GetDecisions()[0].GetDurationMicros() != want || answer.GetDecisions()[0].GetId() != "shop/web" {
			t.Errorf("limit %d: %v %v", limit, answer, err)
		}
	}
	if answer, err := d.admin.Decisions(t.Context(), &api.DecisionsListRequest{}); err != nil || answer.GetDecisions()[0].GetDurationMicros() != 100 {
		t.Errorf("no filter: %v %v", answer, err)
	}
	for _, limit := range []int32{-1, 501} {
		if _, err := d.admin.Decisions(t.Context(), &api.DecisionsListRequest{Filter: &api.DecisionFilter{Limit: limit}}); err == nil || !strings.Contains(err.Error(), "must be 1 to 500") {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

// followStream is the stream of a caller that asks once, and reads unless it is told not to.
type followStream struct {
	grpc.ServerStream

	ctx   context.Context //nolint:containedctx // grpc.ServerStream's own contract
	asked *api.DecisionsListRequest
	reads chan struct{} // nil where it always reads
	sent  []string
}

func (s *followStream) Context() context.Context { return s.ctx }

func (s *followStream) RecvMsg(m any) error {
	proto.Merge(m.(proto.Message), s.asked)
	return nil
}

func (s *followStream) SendMsg(m any) error {
	if s.reads != nil {
		<-s.reads
	}
	r, text := m.(*api.FollowDecisionsResponse), ""
	for _, one := range r.GetDecisions() {
		text += one.GetNode() + one.GetId() + " "
	}
	s.sent = append(s.sent, text+strings.Join(r.GetSilent(), " "))
	return nil
}

// follow makes the call as grpc does, with the interceptor, until ctx ends.
func (d *desk) follow(ctx context.Context, f *api.DecisionFilter, reads chan struct{}) (s *followStream, done chan error) {
	s, done = &followStream{ctx: ctx, asked: &api.DecisionsListRequest{Filter: f}, reads: reads}, make(chan error, 1)
	info := &grpc.StreamServerInfo{FullMethod: "/signet.v1alpha1.Admin/FollowDecisions"}
	go func() {
		done <- admin.Stream(d.admin)(d.admin, s, info, func(_ any, ss grpc.ServerStream) error {
			var req api.DecisionsListRequest
			if err := ss.RecvMsg(&req); err != nil {
				return err
			}
			return d.admin.FollowDecisions(&req, &grpc.GenericServerStream[api.DecisionsListRequest, api.FollowDecisionsResponse]{ServerStream: ss})
		})
	}()
	return s, done
}

// decides has agents a and b decide once a second, both with the same ids; b is silent in the third.
func (d *desk) decides(asks *[]*api.DecisionFilter) {
	begun := time.Now()
	d.decided = func(f *api.DecisionFilter) (list []*api.Decision, silent []string) {
		*asks = append(*asks, proto.CloneOf(f))
		n := int(time.Since(begun) / time.Second)
		for i := n; i >= 0; i-- {
			for _, agent := range []string{"b", "a"} {
				if agent == "b" && n == 2 {
					silent = []string{"b"}
					continue
				}
				list = append(list, &api.Decision{Id: fmt.Sprint(i), Node: agent})
			}
		}
		return list, silent
	}
}

// Each second of each follower was a row of the audit trail.
func TestWhoFollowsDecisionsIsSentEachOnceAndIsInTheTrailOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.cfg.Clock = time.Now
		d.admin = admin.New(d.cfg)
		var asks []*api.DecisionFilter
		begun := time.Now()
		d.decides(&asks)
		ctx, cancel := context.WithCancel(d.ctx())
		s, done := d.follow(ctx, &api.DecisionFilter{Source: "shop/web", Result: api.DecisionFilter_DENIED, Limit: 7}, nil)
		time.Sleep(4*time.Second + time.Second/2)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		d.wants(`uid 7 pid 8: FollowDecisions result=DENIED source="shop/web" destination=""`)
		if want := []string{"a0 b0 ", "a1 b1 ", "a2 b", "b2 a3 b3 ", "a4 b4 "}; !slices.Equal(s.sent, want) {
			t.Errorf("sent\n%q, want\n%q", s.sent, want)
		}
		if len(asks) != 5 || asks[0].GetLimit() != 7 || asks[0].GetSince() != nil {
			t.Fatalf("asked %v", asks)
		}
		for i, f := range asks[1:] {
			if f.GetLimit() != 500 || f.GetSource() != "shop/web" || !f.GetSince().AsTime().Equal(begun.Add(time.Duration(i-10)*time.Second)) {
				t.Errorf("asked %v", f)
			}
		}
	})
}

func TestWhatIsKeptOfAFollowerIsThatOfTheLastSeconds(t *testing.T) {
	next, kept := admin.Follower()
	most := 0
	for second := range 60 {
		var list []*api.Decision
		for i := range 100 {
			list = append(list, &api.Decision{Id: fmt.Sprint(second, i)})
		}
		if m := next(noon.Add(time.Duration(second)*time.Second), list, nil); len(m.GetDecisions()) != 100 {
			t.Fatalf("%d of 100 are sent", len(m.GetDecisions()))
		}
		most = max(most, kept())
	}
	if most != 1100 {
		t.Errorf("%d decisions are kept, of 100 in a second", most)
	}
}

func TestAFollowerThatDoesNotReadHoldsUpItselfAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		var asks []*api.DecisionFilter
		d.decides(&asks)
		ctx, cancel := context.WithCancel(d.ctx())
		reads := make(chan struct{})
		slow, slowDone := d.follow(ctx, nil, reads)
		synctest.Wait()
		if d.done = nil; len(asks) != 1 {
			t.Fatalf("asked %v", asks)
		}
		quick, quickDone := d.follow(ctx, nil, nil)
		time.Sleep(10*time.Second + time.Second/2)
		synctest.Wait()
		if len(quick.sent) != 11 || len(slow.sent) != 0 || len(asks) != 12 {
			t.Errorf("the one that reads was sent %d answers, the one that does not %d, by %d questions", len(quick.sent), len(slow.sent), len(asks))
		}
		cancel()
		close(reads)
		for _, done := range []chan error{slowDone, quickDone} {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestFollowersAreBoundedAndEndWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.decided = func(*api.DecisionFilter) ([]*api.Decision, []string) { return nil, nil }
		var all []chan error
		ctx, cancel := context.WithCancel(d.ctx())
		for i := range admin.MostFollowers {
			of := d.ctx()
			if i == 0 {
				of = ctx
			}
			_, done := d.follow(of, nil, nil)
			all = append(all, done)
			synctest.Wait()
		}
		d.done = nil
		_, refused := d.follow(d.ctx(), nil, nil)
		if err := <-refused; status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "16 calls follow decisions") {
			t.Errorf("one too many: %v", err)
		}
		d.wants("uid 7 pid 8: FollowDecisions ", "row FollowDecisions failed: ResourceExhausted")
		cancel() // whoever goes leaves its place
		if err := <-all[0]; err != nil {
			t.Error(err)
		}
		_, all[0] = d.follow(d.ctx(), nil, nil)
		synctest.Wait()
		close(d.stopping)
		for _, done := range all {
			if err := <-done; status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the server is stopping") {
				t.Errorf("when the server stops: %v", err)
			}
		}
	})
}

func TestWhatCannotBeFollowedIsRefused(t *testing.T) {
	d := newDesk(t)
	for what, f := range map[string]*api.DecisionFilter{"must be 1 to 500": {Limit: 501}, "without an end": {Until: timestamppb.New(noon)}} {
		err := d.admin.FollowDecisions(&api.DecisionsListRequest{Filter: f}, nil)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), what) {
			t.Errorf("%v: %v", f, err)
		}
	}
}

// A stream whose row cannot be written does nothing.
func TestNoStreamBeginsWithoutARowOfTheAuditTrail(t *testing.T) {
	d := newDesk(t)
	d.silent = errors.New("the disk is full")
	d.decided = func(*api.DecisionFilter) ([]*api.Decision, []string) {
		t.Error("agents were asked")
		return nil, nil
	}
	s, done := d.follow(d.ctx(), nil, nil)
	if err := <-done; status.Code(err) != codes.Unavailable || s.sent != nil {
		t.Errorf("%v, sent %q", err, s.sent)
	}
}
