package upstream

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
)

// reporting is a host of which one proxy may be ready.
type reporting struct{ ready string }

func (reporting) Changed(context.Context) <-chan struct{} { return nil }
func (reporting) Report() *api.Report                     { return &api.Report{} }
func (r reporting) Ready(name string) bool                { return name == r.ready }

// said is what a server says on a session, all of it at once.
type said []*api.SessionDown

func (s *said) Recv() (*api.SessionDown, error) {
	if len(*s) == 0 {
		return nil, io.EOF
	}
	m := (*s)[0]
	*s = (*s)[1:]
	return m, nil
}

// lineCount counts a log's lines.
type lineCount struct{ n atomic.Int64 }

func (l *lineCount) Write(p []byte) (int, error) {
	l.n.Add(int64(strings.Count(string(p), "\n")))
	return len(p), nil
}

// refusing is a connection to a server that ends each session with an error.
type refusing struct {
	grpc.ClientConnInterface

	err error
}

func (r refusing) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, r.err
}

// With a report that no server takes nobody is sent to the proxies of this host: that has to
// be seen without the logs of debugging.
func TestASessionThatTheServerDoesNotTakeIsTold(t *testing.T) {
	for code, told := range map[codes.Code]bool{codes.InvalidArgument: true, codes.ResourceExhausted: true, codes.Internal: true, codes.Unavailable: false} {
		synctest.Test(t, func(t *testing.T) {
			log := &lineCount{}
			s := &Session{Conn: refusing{err: status.Error(code, "report: more than 1024 proxies")}, Log: slog.New(slog.NewTextHandler(log, nil))}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
			if n := log.n.Load(); told != (n > 0) || n > 20 {
				t.Errorf("%s: %d lines in an hour", code, n)
			}
		})
	}
}

func TestTheLastThingThatAServerSaidHoldsHoweverFastItSpeaks(t *testing.T) {
	s := &Session{Log: slog.New(slog.DiscardHandler), Reporter: reporting{}}
	for range 20 {
		var all said
		var want map[string]string
		for i := range 200 {
			want = map[string]string{fmt.Sprint("proxy", i%7): fmt.Sprint(i)}
			all = append(all, &api.SessionDown{Message: &api.SessionDown_Unserved{Unserved: &api.Unserved{Reasons: want}}})
		}
		_ = s.receive(t.Context(), &all, nil) // it ends with what was said
		if !maps.Equal(s.unserved, want) {
			t.Fatalf("%v holds, and %v was said last", s.unserved, want)
		}
	}
}

func TestProbesAreAllAnsweredInTheirOrderAndToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lineCount{}
		s := &Session{Log: slog.New(slog.NewTextHandler(log, nil))}
		for minute := range 3 {
			var all said
			for i := range 1000 {
				all = append(all, &api.SessionDown{Message: &api.SessionDown_Probe{Probe: &api.Probe{Nonce: fmt.Sprint(i), Remote: fmt.Sprintf("10.0.0.%d", i%250)}}})
			}
			out := make(chan *api.SessionUp, len(all))
			_ = s.receive(t.Context(), &all, out) // it ends with what was said
			close(out)
			next := 0
			for m := range out {
				if m.GetAlive() != fmt.Sprint(next) {
					t.Fatalf("answer %d is %v", next, m)
				}
				next++
			}
			if n := log.n.Load(); next != 1000 || n != int64(minute+1) {
				t.Fatalf("minute %d: %d answers, %d lines", minute, next, n)
			}
			time.Sleep(newcomersLogged)
		}
	})
}
