package questions_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/server/questions"
)

func decisions(ids ...string) (list []*api.Decision) {
	for _, id := range ids {
		list = append(list, &api.Decision{Id: id})
	}
	return list
}

func anything(*api.Decision) bool { return true }

func TestAQuestionWaitsForAllWhomItWasPutToOrItsTime(t *testing.T) {
	for what, c := range map[string]struct {
		first  bool
		answer func(q *questions.Questions)
		found  []string
		silent []string
		took   time.Duration
	}{
		"all":               {false, func(q *questions.Questions) { q.Answer("a", "id", decisions("1", "2", "3")); q.Answer("b", "id", nil) }, []string{"1", "2"}, nil, 0},
		"one is silent":     {false, func(q *questions.Questions) { q.Answer("a", "id", decisions("1")) }, []string{"1"}, []string{"b"}, time.Second},
		"one is enough":     {true, func(q *questions.Questions) { q.Answer("a", "id", decisions("1")) }, []string{"1"}, []string{"b"}, 400 * time.Millisecond},
		"twice":             {false, func(q *questions.Questions) { q.Answer("a", "id", decisions("1")); q.Answer("a", "id", decisions("2")) }, []string{"1"}, []string{"b"}, time.Second},
		"who was not asked": {false, func(q *questions.Questions) { q.Answer("c", "id", decisions("1")) }, nil, []string{"a", "b"}, time.Second},
		"of another":        {false, func(q *questions.Questions) { q.Answer("a", "another", decisions("1")) }, nil, []string{"a", "b"}, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			q, begun := new(questions.Questions), time.Now()
			found, silent := q.Ask(t.Context(), questions.Question{ID: "id", Most: 2, Takes: anything, First: c.first, Within: time.Second}, func() []string {
				go c.answer(q)
				return []string{"a", "b"}
			})
			var ids []string
			for _, d := range found {
				ids = append(ids, d.GetId())
			}
			if !slices.Equal(ids, c.found) || !slices.Equal(silent, c.silent) || time.Since(begun) != c.took {
				t.Errorf("%s: %v, silent %v after %v", what, ids, silent, time.Since(begun))
			}
		})
	}
	q := new(questions.Questions)
	if found, silent := q.Ask(t.Context(), questions.Question{ID: "id", Most: 1, Within: time.Hour}, func() []string { return nil }); found != nil || silent != nil {
		t.Errorf("nobody is there: %v %v", found, silent)
	}
}

// One agent that is not ours any more made up as many as are listed, with times to come, and
// what all others had denied was nowhere.
func TestNoAgentLeavesTheOthersNoRoomWhateverItMakesUp(t *testing.T) {
	const most = 10
	q := new(questions.Questions)
	found, _ := q.Ask(t.Context(), questions.Question{
		ID: "id", Most: most, Within: time.Minute, Takes: func(d *api.Decision) bool { return !d.GetAllowed() },
	}, func() []string {
		go func() {
			for _, agent := range []string{"liar", "a", "b"} {
				var list []*api.Decision
				for i := range 3 * most {
					d := &api.Decision{Id: fmt.Sprint(agent, i), Node: agent, Time: timestamppb.New(time.Unix(int64(1000-i), 0))}
					if agent == "liar" {
						d.Time, d.Allowed = timestamppb.New(time.Unix(1<<30, 0)), i%2 == 0 // which was not asked for
					}
					list = append(list, d)
				}
				q.Answer(agent, "id", list[:map[string]int{"liar": 3 * most, "a": 2, "b": 3 * most}[agent]])
			}
		}()
		return []string{"liar", "a", "b"}
	})
	of, ids := map[string]int{}, ""
	for _, d := range found {
		if of[d.GetNode()]++; d.GetAllowed() {
			t.Errorf("%s was not asked for", d.GetId())
		}
		if d.GetNode() != "liar" {
			ids += " " + d.GetId()
		}
	}
	if of["liar"] != 4 || of["a"] != 2 || of["b"] != 4 || ids != " a0 b0 a1 b1 b2 b3" {
		t.Errorf("%v:%s", of, ids)
	}
}
