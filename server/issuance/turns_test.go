package issuance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"signet.example/api"
)

// inTurn is an Issuer that keeps nobody waiting.
type inTurn struct{ Issuer }

func (i inTurn) Issue(ctx context.Context, _ Share, items []*api.SignItem) ([]*api.SignResult, error) {
	return i.Issuer.Issue(ctx, items)
}

// crowd has n agents of one role ask for so many certificates each.
func crowd(ctx context.Context, asking *sync.WaitGroup, q *Queue, n, size int) {
	for i := range n {
		asking.Go(func() {
			_, _ = q.Issue(ctx, Share{"aws_task:arn:aws:iam::1:role/r", fmt.Sprint(i)}, signItems(fmt.Sprint("role/", i), size)) // the signer's errors are other tests'
		})
	}
}

func TestAgentsOfOneRoleLeaveTheNextCallToWhoeverElseAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &heldSigner{}
		q := runQueue(t, s)
		var asking sync.WaitGroup
		crowd(t.Context(), &asking, q, 1000, aloneFrom-1)
		synctest.Wait() // sharedCalls are under way, and the rest waits
		for _, other := range []string{"one", "two"} {
			asking.Go(func() {
				if _, err := q.Issue(t.Context(), Share{Agent: other}, signItems(other, 1)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		s.may <- struct{}{} // of several that end together, any may ask next
		synctest.Wait()
		next := map[string]bool{}
		for _, i := range s.asked[sharedCalls] {
			next[strings.SplitN(i.GetSpiffeId(), "/", 2)[0]] = true
		}
		close(s.may)
		asking.Wait()
		if !next["one"] || !next["two"] || !next["role"] {
			t.Errorf("the next call is of %v", next)
		}
	})
}

func TestOfOneRoleEachAgentHasItsTurnBeforeOneHasItsSecond(t *testing.T) {
	var w turns
	for _, agent := range []string{"busy", "busy", "busy", "quiet"} {
		whose := Share{"role:r", agent}
		w.push(&request{items: signItems(agent, 1)}, whose.path()...)
	}
	other := Share{Agent: "other"}
	w.push(&request{items: signItems("other", 1)}, other.path()...)
	var got []string
	for r := w.pop(); r != nil; r = w.pop() {
		got = append(got, r.items[0].GetSpiffeId())
	}
	if want := []string{"busy/0", "other/0", "quiet/0", "busy/0", "busy/0"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if !w.empty() || len(w.of) > 0 {
		t.Errorf("%+v is kept", w)
	}
}

func TestWhoLeavesHasNoTurnAndKeepsNothing(t *testing.T) {
	var w turns
	a, b := Share{"role:r", "a"}, Share{"role:r", "b"}
	first, second := &request{}, &request{}
	w.push(first, a.path()...)
	w.push(second, b.path()...)
	if !w.remove(first, a.path()...) || w.remove(first, a.path()...) {
		t.Error("it leaves once")
	}
	if got := w.pop(); got != second || w.pop() != nil || !w.empty() || len(w.of) > 0 {
		t.Errorf("%p, want %p; %+v is kept", got, second, w)
	}
}

func TestBatchesOfOneRoleAreFewAtATimeAndOthersGoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &heldSigner{}
		q := runQueue(t, s)
		var asking sync.WaitGroup
		ctx, leave := context.WithCancel(t.Context())
		crowd(t.Context(), &asking, q, aloneOfShare+3, aloneFrom)
		synctest.Wait()
		crowd(ctx, &asking, q, 5, aloneFrom) // these leave
		synctest.Wait()
		if n := len(s.calls); n != aloneOfShare {
			t.Errorf("%d batches of one role are under way", n)
		}
		asking.Go(func() { _, _ = q.Issue(t.Context(), Share{Agent: "other"}, signItems("other", aloneFrom)) })
		synctest.Wait()
		if n := len(s.calls); n != aloneOfShare+1 || !strings.HasPrefix(s.asked[n-1][0].GetSpiffeId(), "other") {
			t.Errorf("%d batches are under way, and another's is none of them", n)
		}
		leave()
		synctest.Wait()
		close(s.may)
		asking.Wait()
		if n := len(s.calls); n != aloneOfShare+4 {
			t.Errorf("%d batches were signed", n)
		}
		if len(q.large) > 0 {
			t.Errorf("%v is kept", q.large)
		}
	})
}
