package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"signet.example/api"
)

const (
	// reportPause is the least time between two reports.
	reportPause = 100 * time.Millisecond
	// reportIdle is the most time in which a change that wakes nobody stays untold.
	reportIdle = 5 * time.Second
	// explainTries and explainPause give a decision the time to come from the authz
	// process: it is asked for by who has just been denied.
	explainTries  = 5
	explainPause  = 40 * time.Millisecond
	explainAtOnce = 16
)

// session tells the server how this host is, and answers its questions.
type session struct {
	u        *upstream
	reporter *reporter
	ring     *ring
	log      *slog.Logger
}

// Run keeps a session open until ctx ends, or the agent is banned.
func (s *session) Run(ctx context.Context) error {
	for failures := 1; ; failures++ {
		begun := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if banned(err) {
			return err
		}
		if time.Since(begun) > retryNew {
			failures = 1
		}
		level := slog.LevelDebug
		if elsewhere(err) && failures&(failures-1) == 0 { // each doubling is told
			level = slog.LevelError
		}
		s.log.Log(ctx, level, "session ended", slog.Any("err", err))
		if !sleep(ctx, retryDelay(failures, 0, rand.Float64())) {
			return nil
		}
	}
}

// once runs one stream to its end.
func (s *session) once(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stream, err := api.NewAgentAPIClient(s.u.conn).Session(ctx)
	if err != nil {
		return fmt.Errorf("session: %w", err)
	}
	out := make(chan *api.SessionUp)
	g.Go(func() error { return s.report(ctx, out) })
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
	g.Go(func() error {
		questions := errgroup.Group{}
		questions.SetLimit(explainAtOnce)
		defer func() { _ = questions.Wait() }() // they fail with ctx only
		for {
			m, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("session: %w", err)
			}
			questions.Go(func() error {
				s.answer(ctx, m, out)
				return nil
			})
		}
	})
	return g.Wait()
}

// report sends the state whenever it differs from what was sent last.
func (s *session) report(ctx context.Context, out chan<- *api.SessionUp) error {
	var last *api.Report
	for {
		changed := s.reporter.changed(ctx)
		if r := s.reporter.report(); !proto.Equal(r, last) {
			select {
			case out <- &api.SessionUp{Message: &api.SessionUp_Report{Report: r}}:
				last = r
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if !sleep(ctx, reportPause) {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answer does what the server asks of a session.
func (s *session) answer(ctx context.Context, m *api.SessionDown, out chan<- *api.SessionUp) {
	switch m := m.GetMessage().(type) {
	case *api.SessionDown_Explain:
		s.explain(ctx, m.Explain, out)
	case *api.SessionDown_Probe:
		s.log.ErrorContext(ctx, "another process has this host's key and was refused: was data_dir copied, or stolen? signet check on the server has more",
			slog.String("remote", m.Probe.GetRemote()))
		select {
		case out <- &api.SessionUp{Message: &api.SessionUp_Alive{Alive: m.Probe.GetNonce()}}:
		case <-ctx.Done():
		}
	case *api.SessionDown_Unserved:
		s.unserved(ctx, m.Unserved.GetReasons())
	}
}

// unserved takes which proxies no caller is sent to.
func (s *session) unserved(ctx context.Context, reasons map[string]string) {
	before := s.reporter.unserved.load()
	for _, name := range slices.Sorted(maps.Keys(reasons)) {
		if before[name] != reasons[name] {
			s.log.WarnContext(ctx, "no caller is sent to this proxy", slog.String("proxy", name), slog.String("reason", reasons[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if reasons[name] == "" {
			s.log.InfoContext(ctx, "callers are sent to this proxy", slog.String("proxy", name))
		}
	}
	s.reporter.unserved.set(reasons)
}

// explain answers for one decision, with nothing where it is not here.
func (s *session) explain(ctx context.Context, id string, out chan<- *api.SessionUp) {
	d := s.ring.get(id)
	for range explainTries {
		if d != nil || !sleep(ctx, explainPause) {
			break
		}
		d = s.ring.get(id)
	}
	select {
	case out <- &api.SessionUp{Message: &api.SessionUp_Explain{Explain: &api.ExplainAnswer{Id: id, Decision: d}}}:
	case <-ctx.Done():
	}
}
