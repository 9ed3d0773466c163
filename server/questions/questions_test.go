package questions_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/api"
	"signet.example/server/questions"
)

func decisions(ids ...string) (list []*api.Decision) {
	for _, id := range ids {
		list = append(list, &api.Decision{Id: id})
	}
	return list
}

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
			found, silent := q.Ask(t.Context(), "id", 2, c.first, time.Second, func() []string {
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
	if found, silent := q.Ask(t.Context(), "id", 1, false, time.Hour, func() []string { return nil }); found != nil || silent != nil {
		t.Errorf("nobody is there: %v %v", found, silent)
	}
}
