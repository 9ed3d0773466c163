package cloudmap

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"signet.example/internal/plain"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/server/shared"
)

const (
	// parallel is how many questions are asked at once, and parallelFailing how many beside them
	// of which the last one failed: they may take all of their time again.
	parallel, parallelFailing = 8, 4
	// each is how long one question may take.
	each = 5 * time.Second
	// healthEvery is how many times an unchanged revision is believed: it does not change
	// with the health of an instance.
	healthEvery = 6
)

// failing is when a question that failed is asked again; where Cloud Map limits us and says when,
// then, within these bounds.
var failing = retry.Policy{First: 2 * time.Second, Most: time.Minute, Jitter: 0.3}

// Asker answers questions. Its methods are called from many goroutines.
type Asker interface {
	// Discover lists the instances that can be called, and the revision of the service.
	Discover(ctx context.Context, q Question) (list []Instance, revision int64, err error)
	// Revision changes with each instance of the service that comes or goes.
	// Both return a retry.LimitedError where they are asked too often.
	Revision(ctx context.Context, q Question) (int64, error)
}

// Config of Services. Every field is needed.
type Config struct {
	// Asked are the virtual nodes of which instances are looked for now. It may be called
	// at any time.
	Asked func() map[proxy.Ref]Question
	Asker Asker
	Every time.Duration
	// Shared is the last good answers, whichever server was given them.
	Shared shared.Value[*Answers]
	// Changed is called when an answer is another one, by several goroutines. It must not wait.
	Changed  func()
	Log      *slog.Logger
	Clock    func() time.Time
	Failures *prometheus.CounterVec // of questions, by service
}

// Services keeps what is known of the instances of virtual nodes. An answer that says that
// an instance is gone is believed at once; a question that fails leaves the last good
// answer, for as long as it fails.
type Services struct {
	Config
	renew watched.Signal // what is asked for may be other questions
	ended watched.Signal // there is room for a question

	mu     sync.Mutex // guards what follows, and what it leads to
	tried  map[proxy.Ref]*attempt
	asking map[proxy.Ref]bool // true where the last question had failed
}

// attempt is what became of the last question for a virtual node.
type attempt struct {
	of       Question
	next     time.Time // when to ask again
	failed   int       // questions since the last answer
	err      string
	revision int64
	believed int // times that the revision was the same, since the instances were asked for
	answered time.Time
}

// Failure is why there is no newer answer than that of Answered, which may be zero.
type Failure struct {
	Service, Err string
	Answered     time.Time
}

// New returns Services that have asked nothing.
func New(c Config) *Services {
	return &Services{Config: c, renew: watched.NewSignal(), ended: watched.NewSignal(), tried: map[proxy.Ref]*attempt{}, asking: map[proxy.Ref]bool{}}
}

// Answers are the last good ones.
func (s *Services) Answers() *Answers {
	if s == nil {
		return nil
	}
	now, _ := s.Shared.Get()
	return now
}

// Renew has Run look at what is asked for again. It never waits.
func (s *Services) Renew() {
	if s != nil {
		s.renew.Wake()
	}
}

// Run asks as it comes due, and follows what other servers were answered, until ctx ends.
func (s *Services) Run(ctx context.Context) error {
	if s == nil {
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	var seen *Answers
	var asked map[proxy.Ref]Question
	for {
		now, changed := s.Shared.Get()
		if now != seen {
			s.Changed()
		}
		seen = now
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			continue
		case <-s.ended:
		case <-s.renew:
			asked = s.Asked()
		case <-timer.C:
			asked = s.Asked()
		}
		timer.Reset(s.refresh(ctx, asked, &calls))
	}
}

// refresh begins to ask what is due, as far as there is room, and returns in how long the next is.
// Each question that ends has Run look again.
func (s *Services) refresh(ctx context.Context, asked map[proxy.Ref]Question, calls *sync.WaitGroup) time.Duration {
	now := s.Clock() // read once: what comes due after that is the next one, and not what waits for room
	s.forget(asked)
	for node, q := range asked {
		if t, due := s.due(node, q, now); due && s.begin(node, t.err != "") {
			calls.Go(func() {
				s.ask(ctx, node, t)
				s.end(node)
			})
		}
	}
	next := time.Hour
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tried {
		if in := t.next.Sub(now); in > 0 { // what is due waits for room
			next = min(next, in)
		}
	}
	return next
}

// begin reports whether a question may be asked now.
func (s *Services) begin(node proxy.Ref, failed bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, already := s.asking[node]
	n, most := 0, parallel
	if failed {
		most = parallelFailing
	}
	for _, f := range s.asking {
		if f == failed {
			n++
		}
	}
	if already || n >= most {
		return false
	}
	s.asking[node] = failed
	return true
}

func (s *Services) end(node proxy.Ref) {
	s.mu.Lock()
	delete(s.asking, node)
	s.mu.Unlock()
	s.ended.Wake()
}

// forget drops what is not asked for any more, or was an answer to another question.
func (s *Services) forget(asked map[proxy.Ref]Question) {
	if now := s.Answers(); now.only(asked) != now {
		s.Shared.Update(func(now *Answers) *Answers { return now.only(asked) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.tried, func(node proxy.Ref, t *attempt) bool {
		q, ok := asked[node]
		return !ok || !q.same(t.of)
	})
}

// due returns what was tried, and reports whether it is time to ask.
func (s *Services) due(node proxy.Ref, q Question, now time.Time) (attempt, bool) {
	_, known := s.Answers().Of(node)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tried[node]
	switch {
	case t == nil:
		return attempt{of: q}, true
	case !known && t.err == "": // another server has let go of it
		return attempt{of: q}, true
	}
	return *t, !t.next.After(now)
}

// ask asks one question and takes what comes of it.
func (s *Services) ask(ctx context.Context, node proxy.Ref, t attempt) {
	calling, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	if t.err == "" && !t.answered.IsZero() && t.believed < healthEvery {
		switch revision, err := s.Asker.Revision(calling, t.of); {
		case err == nil && revision == t.revision:
			t.believed++
			s.learned(node, t)
			return
		case errors.As(err, new(*retry.LimitedError)):
			s.failed(ctx, node, t, err) // another question is what it asks us not to send
			return
		}
	}
	list, revision, err := s.Asker.Discover(calling, t.of)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.failed(ctx, node, t, err)
		return
	}
	t.revision, t.believed = revision, 0
	var was, is *Answers
	s.Shared.Update(func(now *Answers) *Answers {
		was, is = now, now.with(node, &answer{t.of, list})
		return is
	})
	s.learned(node, t)
	if is != was {
		s.Changed() // Run may wait for other answers for long
	}
}

func (s *Services) learned(node proxy.Ref, t attempt) {
	t.failed, t.err, t.answered = 0, "", s.Clock()
	t.next = t.answered.Add(retry.Policy{First: s.Every, Most: s.Every, Jitter: 0.2}.Next(1, nil))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried[node] = &t
}

func (s *Services) failed(ctx context.Context, node proxy.Ref, t attempt, err error) {
	service := plain.Text(t.of.Service + "." + t.of.Namespace)
	s.Failures.WithLabelValues(service).Inc()
	if t.failed++; t.err == "" {
		s.Log.WarnContext(ctx, "AWS Cloud Map does not answer; the last good answer stays",
			slog.String("node", node.String()), slog.String("service", service), slog.Any("err", err))
	}
	t.err, t.next = plain.Text(err.Error()), s.Clock().Add(failing.Next(t.failed, err))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried[node] = &t
}

// Failing lists the virtual nodes whose last question of this server failed.
func (s *Services) Failing() map[proxy.Ref]Failure {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[proxy.Ref]Failure{}
	for node, t := range s.tried {
		if t.err != "" {
			out[node] = Failure{plain.Text(t.of.Service + "." + t.of.Namespace), t.err, t.answered}
		}
	}
	return out
}
