package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
)

const (
	// reportPause is the least time between two reports.
	reportPause = 100 * time.Millisecond
	// explainTries and explainPause give a decision the time to come from the authz
	// process: it is asked for by who has just been denied.
	explainTries  = 5
	explainPause  = 40 * time.Millisecond
	explainAtOnce = 16
	// wantPause is the least time between two keys that are asked for.
	wantPause = 200 * time.Millisecond
	// newcomersLogged is how often newcomers with this host's key are worth a line.
	newcomersLogged = time.Minute
)

// Reporter knows how this host is. One goroutine at a time reports; Ready is asked by
// another one.
type Reporter interface {
	// Changed returns a channel that is closed when Report may have become another one,
	// and in any case within a few seconds.
	Changed(ctx context.Context) <-chan struct{}
	// Report is how the host is now.
	Report() *api.Report
	// Ready reports whether a proxy of this name serves.
	Ready(name string) bool
}

// Session tells the server how this host is, and answers its questions.
type Session struct {
	Conn     grpc.ClientConnInterface
	Reporter Reporter
	// Decision is what is kept of one, by its id; nil where that is nothing.
	Decision func(id string) *api.Decision
	// Decisions are those that are kept, of each caller and callee in turn.
	Decisions func(*api.DecisionFilter) []*api.Decision
	// Wanted are keys that the server is asked to find.
	Wanted  <-chan *api.WantedKey
	Callers *Callers
	Log     *slog.Logger

	// unserved are the proxies to which no caller is sent, and why, as the server said
	// last, over all streams. It and newcomers belong to the goroutine that receives.
	unserved  map[string]string
	newcomers newcomers
}

// newcomers are other processes that show this host's key.
type newcomers struct {
	logged   time.Time // when a line was written
	unlogged int       // probes since
}

// Run keeps a session open until ctx ends, or the agent is banned.
func (s *Session) Run(ctx context.Context) error {
	for tries := (retry.Tries{Policy: svids.Asking}); ; {
		begun := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if api.Banned(err) {
			return err
		}
		pause, level := tries.Failed(time.Since(begun), err), slog.LevelDebug
		if tries.Doubled() {
			switch {
			case api.Elsewhere(err):
				level = slog.LevelError
			case api.Untaken(err): // nothing is known of this host, so that no caller is sent to it
				level = slog.LevelWarn
			}
		}
		s.Log.Log(ctx, level, "session ended", slog.Any("err", err))
		if !watched.Sleep(ctx, pause) {
			return nil
		}
	}
}

// goodbye is how long the servers have for it: a task that is told to stop has little time,
// and without it they forget the agent by themselves, later.
const goodbye = 2 * time.Second

// Leave ends the standing of this agent, as which nobody comes back, with a goodbye. Its session
// has ended, and nobody asks it for anything any more.
func (s *Session) Leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, goodbye)
	defer cancel()
	if _, err := api.NewAgentAPIClient(s.Conn).Leave(ctx, &api.LeaveRequest{}); err != nil {
		s.Log.WarnContext(ctx, "the server was not told that this task ends: it forgets the agent some minutes after its certificate's end", slog.Any("err", err))
	}
}

// once runs one stream to its end.
func (s *Session) once(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stream, err := api.NewAgentAPIClient(s.Conn).Session(ctx)
	if err != nil {
		return fmt.Errorf("session: %w", err)
	}
	out := make(chan *api.SessionUp)
	g.Go(func() error { return s.report(ctx, out) })
	g.Go(func() error { return s.want(ctx, out) })
	g.Go(func() error {
		for {
			select {
			case m := <-out:
				if err := stream.Send(m); err != nil {
					return fmt.Errorf("session: %w", err)
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	g.Go(func() error { return s.receive(ctx, stream, out) })
	return g.Wait()
}

// receive does what comes on a stream, in its order. Only decisions are looked up
// beside it, since that takes a while.
func (s *Session) receive(ctx context.Context, stream interface {
	Recv() (*api.SessionDown, error)
}, out chan<- *api.SessionUp,
) error {
	questions := errgroup.Group{}
	questions.SetLimit(explainAtOnce)
	defer func() { _ = questions.Wait() }() // they fail with ctx only
	for {
		m, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("session: %w", err)
		}
		switch m := m.GetMessage().(type) {
		case *api.SessionDown_Explain:
			questions.Go(func() error {
				s.explain(ctx, m.Explain, out)
				return nil
			})
		case *api.SessionDown_Decisions:
			questions.Go(func() error {
				a := &api.DecisionsAnswer{Nonce: m.Decisions.GetNonce(), Decisions: s.Decisions(m.Decisions.GetFilter())}
				send(ctx, out, &api.SessionUp{Message: &api.SessionUp_Decisions{Decisions: a}})
				return nil
			})
		case *api.SessionDown_Probe:
			send(ctx, out, &api.SessionUp{Message: &api.SessionUp_Alive{Alive: m.Probe.GetNonce()}})
			s.newcomer(ctx, m.Probe.GetRemote())
		case *api.SessionDown_Unserved:
			s.takeUnserved(ctx, m.Unserved.GetReasons())
		case *api.SessionDown_Withdrawn:
			s.Callers.take(m.Withdrawn)
		}
	}
}

// report sends the state whenever it differs from what was sent last.
func (s *Session) report(ctx context.Context, out chan<- *api.SessionUp) error {
	var last *api.Report
	for {
		changed := s.Reporter.Changed(ctx)
		r := s.Reporter.Report()
		if fit(r); !proto.Equal(r, last) {
			select {
			case out <- &api.SessionUp{Message: &api.SessionUp_Report{Report: r}}:
				last = r
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if !watched.Sleep(ctx, reportPause) {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// want asks for keys, one after the other: the server takes so many messages in a second.
func (s *Session) want(ctx context.Context, out chan<- *api.SessionUp) error {
	for {
		select {
		case k := <-s.Wanted:
			send(ctx, out, &api.SessionUp{Message: &api.SessionUp_WantedKey{WantedKey: k}})
		case <-ctx.Done():
			return ctx.Err()
		}
		if !watched.Sleep(ctx, wantPause) {
			return ctx.Err()
		}
	}
}

// newcomer logs another process with this host's key, and how many probes
// there were since it last did: a thief can try again and again.
func (s *Session) newcomer(ctx context.Context, remote string) {
	n := &s.newcomers
	if !n.logged.IsZero() && time.Since(n.logged) < newcomersLogged {
		n.unlogged++
		return
	}
	s.Log.ErrorContext(ctx, "another process has this host's key and was refused: was data_dir copied, or stolen? signet check on the server has more",
		slog.String("remote", remote), slog.Int("untold", n.unlogged))
	*n = newcomers{logged: time.Now()}
}

// takeUnserved takes which proxies no caller is sent to.
func (s *Session) takeUnserved(ctx context.Context, reasons map[string]string) {
	before := s.unserved
	for _, name := range slices.Sorted(maps.Keys(reasons)) {
		if before[name] != reasons[name] {
			s.Log.WarnContext(ctx, "no caller is sent to this proxy", slog.String("proxy", name), slog.String("reason", reasons[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if reasons[name] == "" && s.Reporter.Ready(name) { // one that stops is not told of, either
			s.Log.InfoContext(ctx, "callers are sent to this proxy", slog.String("proxy", name))
		}
	}
	s.unserved = reasons
}

// explain answers for one decision, with nothing where it is not here.
func (s *Session) explain(ctx context.Context, id string, out chan<- *api.SessionUp) {
	d := s.Decision(id)
	for range explainTries {
		if d != nil || !watched.Sleep(ctx, explainPause) {
			break
		}
		d = s.Decision(id)
	}
	send(ctx, out, &api.SessionUp{Message: &api.SessionUp_Explain{Explain: &api.ExplainAnswer{Id: id, Decision: d}}})
}

func send(ctx context.Context, out chan<- *api.SessionUp, m *api.SessionUp) {
	select {
	case out <- m:
	case <-ctx.Done():
	}
}

// Wanted are keys of issuers on their way to a server. What is lost is asked for again.
type Wanted chan *api.WantedKey

// Add never waits.
func (w Wanted) Add(k *api.WantedKey) {
	select {
	case w <- k:
	default:
	}
}
