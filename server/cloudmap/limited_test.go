package cloudmap

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"signet.example/internal/retry"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// limits is a Cloud Map that limits whoever asks, and notes when it is asked.
type limits struct {
	fake
	after time.Duration
	on    bool
	asked []time.Time
}

func (l *limits) limited() error {
	l.Lock()
	defer l.Unlock()
	if !l.on {
		return nil
	}
	l.asked = append(l.asked, time.Now())
	return &retry.LimitedError{After: l.after, Err: errors.New("ThrottlingException")}
}

func (l *limits) Discover(ctx context.Context, q Question) ([]Instance, int64, error) {
	if err := l.limited(); err != nil {
		return nil, 0, err
	}
	return l.fake.Discover(ctx, q)
}

func (l *limits) Revision(ctx context.Context, q Question) (int64, error) {
	if err := l.limited(); err != nil {
		return 0, err
	}
	return l.fake.Revision(ctx, q)
}

// A question that is one too many is not followed by another one at once, and by one more when Cloud
// Map says, within our own bounds.
func TestWhoIsLimitedAsksLater(t *testing.T) {
	for _, c := range []struct {
		name        string
		says        time.Duration
		least, most []time.Duration // between questions
	}{
		{"says nothing", 0, seconds(1.4, 2.8, 5.6, 11.2, 22.4, 42, 42), seconds(2, 4, 8, 16, 32, 60, 60)},
		{"says when", 7 * time.Second, seconds(7, 7, 7), seconds(7, 7, 7)},
		{"says at once", time.Millisecond, seconds(2, 2, 2), seconds(2, 2, 2)},
		{"says tomorrow", 24 * time.Hour, seconds(60, 60, 60), seconds(60, 60, 60)},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &limits{after: c.says, fake: fake{list: []Instance{{"10.0.0.1", 0}}, revision: 1, asked: map[proxy.Ref]Question{orders: {Namespace: "shop.local", Service: "orders"}}}}
				s := New(Config{
					Asked: f.questions, Asker: f, Every: 5 * time.Second, Shared: &watched.Value[*Answers]{}, Log: slog.New(slog.DiscardHandler), Clock: time.Now,
					Changed: func() {}, Failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "failures"}, []string{"service"}),
				})
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- s.Run(ctx) }()
				time.Sleep(11 * time.Second) // it has an answer, and has asked for the revision
				f.become(func() { f.on = true })
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				var asked []time.Time
				f.become(func() { f.on, asked = false, slices.Clone(f.asked) })
				if len(asked) <= len(c.least) {
					t.Fatalf("asked %d times", len(asked))
				}
				for n, least := range c.least {
					if gap := asked[n+1].Sub(asked[n]).Round(time.Millisecond); gap < least || gap > c.most[n] {
						t.Errorf("question %d came %s after the one before, want %s to %s", n+2, gap, least, c.most[n])
					}
				}
				if list, _ := s.Answers().Of(orders); len(list) != 1 || len(s.Failing()) != 1 {
					t.Errorf("%v, failing %v", list, s.Failing())
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(s.Failing()) != 0 {
					t.Errorf("a minute after the limit: %v", s.Failing())
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func seconds(all ...float64) (list []time.Duration) {
	for _, s := range all {
		list = append(list, time.Duration(s*float64(time.Second)))
	}
	return list
}

func TestAnAnswerThatLimitsIsKnownByItsCodeOrItsStatus(t *testing.T) {
	for _, c := range []struct {
		code    string
		status  int
		after   string
		limited bool
		want    time.Duration
	}{
		{"ThrottlingException", http.StatusBadRequest, "", true, 0},
		{"RequestLimitExceeded", http.StatusBadRequest, "", true, 0},
		{"RequestLimitExceeded", http.StatusServiceUnavailable, "9", true, 9 * time.Second},
		{"", http.StatusTooManyRequests, "3", true, 3 * time.Second},
		{"ThrottlingException", http.StatusBadRequest, "Wed, 21 Oct 2026 07:28:00 GMT", true, 0},
		{"ThrottlingException", http.StatusBadRequest, "-1", true, 0},
		{"ThrottlingException", http.StatusBadRequest, "99999999999999999999", true, 0},
		{"ServiceNotFound", http.StatusBadRequest, "9", false, 0},
		{"", http.StatusInternalServerError, "9", false, 0},
	} {
		a := asking(t, func(w http.ResponseWriter, _ *http.Request) {
			if c.after != "" {
				w.Header().Set("Retry-After", c.after)
			}
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(`{"__type": "` + c.code + `"}`)) // the client sees it or has failed
		})
		q := Question{Namespace: "shop.local", Service: "orders"}
		_, ofRevision := a.Revision(t.Context(), q)
		_, _, ofList := a.Discover(t.Context(), q)
		for _, err := range []error{ofRevision, ofList} {
			limited, ok := errors.AsType[*retry.LimitedError](err)
			if err == nil || ok != c.limited || ok && limited.After != c.want {
				t.Errorf("%+v: %#v", c, err)
			}
		}
	}
}
