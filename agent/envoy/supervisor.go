package envoy

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Supervisor runs the Envoys of the configuration that is in force.
type Supervisor struct {
	config   Config
	programs programs
	// changes takes what is to be changed to Run.
	changes chan Change

	// mu is held over nothing that waits.
	mu  sync.Mutex
	all []*supervised // guarded by mu
}

// supervised is one proxy, from when it is configured to the end of its draining.
type supervised struct {
	proxy Proxy
	stop  context.CancelFunc
	done  chan struct{}
	// ending is set for good when it is told to stop; guarded by Supervisor.mu.
	ending bool
	// envoy is nil while it waits for another proxy's end; guarded by Supervisor.mu.
	envoy *envoy
}

// Change takes proxies away by name and adds others. One that is changed is in both.
type Change struct {
	Gone  []string
	Added []Proxy
}

// New returns a Supervisor that runs nothing yet.
func New(c Config) *Supervisor { return &Supervisor{config: c, changes: make(chan Change)} }

// Change has Run make a change. It returns before the proxies that are taken away
// have drained.
func (s *Supervisor) Change(ctx context.Context, c Change) error {
	select {
	case s.changes <- c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status is how each proxy is that runs or is about to, draining ones too.
func (s *Supervisor) Status() []Status {
	var list []Status
	for _, e := range s.envoys() {
		list = append(list, e.current(time.Now()))
	}
	return list
}

// envoys are those that run or are about to, draining ones too.
func (s *Supervisor) envoys() []*envoy {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*envoy
	for _, p := range s.all {
		if p.envoy != nil {
			list = append(list, p.envoy)
		}
	}
	return list
}

// Run runs the proxies until ctx ends and each has stopped.
func (s *Supervisor) Run(ctx context.Context, first []Proxy) {
	var wg sync.WaitGroup
	defer wg.Wait()
	s.apply(ctx, &wg, Change{Added: first})
	for {
		select {
		case c := <-s.changes:
			s.apply(ctx, &wg, c)
		case <-ctx.Done():
			return
		}
	}
}

// apply stops what is gone, which drains first, and starts what is added: after
// the end of all that are to end, by this change or an earlier one, and have its
// name, its address or its admin socket. What is kept by these has one owner.
func (s *Supervisor) apply(ctx context.Context, wg *sync.WaitGroup, c Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.all {
		if slices.Contains(c.Gone, p.proxy.Name) {
			p.ending = true
			p.stop()
		}
	}
	for _, added := range c.Added {
		var before []<-chan struct{}
		for _, p := range s.all {
			if p.ending && (p.proxy.Name == added.Name || p.proxy.Shape.Bind == added.Shape.Bind || p.proxy.Admin == added.Admin) {
				before = append(before, p.done)
			}
		}
		p := &supervised{proxy: added, done: make(chan struct{})}
		var own context.Context
		own, p.stop = context.WithCancel(ctx)
		s.all = append(s.all, p)
		wg.Go(func() { s.run(own, p, before) })
	}
}

func (s *Supervisor) run(ctx context.Context, p *supervised, before []<-chan struct{}) {
	defer p.stop()
	defer close(p.done)
	defer s.remove(p)
	for _, done := range before {
		<-done // they have been told to end
	}
	if ctx.Err() != nil {
		return
	}
	s.config.Views.Configure(p.proxy.Name, p.proxy.Ref, p.proxy.Shape)
	s.config.Metrics.begin(p.proxy.Name)
	e := newEnvoy(s.config, p.proxy, &s.programs)
	s.mu.Lock()
	p.envoy = e
	s.mu.Unlock()
	s.read(ctx, e, func() { e.Run(ctx) })
	s.config.Views.Unconfigure(p.proxy.Name)
	s.config.Metrics.gone(p.proxy.Name)
}

// read has others read of the proxy while it runs, its draining included.
func (s *Supervisor) read(ctx context.Context, e *envoy, run func()) {
	if e.proxy.ReadOnly == "" {
		run()
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.config.Read(ctx, e.proxy, e.admin.get) })
	run()
	cancel()
	wg.Wait()
}

func (s *Supervisor) remove(p *supervised) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(other *supervised) bool { return other == p })
}
