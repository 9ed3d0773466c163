package agent

import (
	"context"
	"slices"
	"sync"
)

// supervisor runs the Envoys of the configuration that is in force.
type supervisor struct {
	// build makes the Envoy of a proxy.
	build   func(Proxy) *envoy
	relay   *relay
	metrics *metrics
	// changes takes what is to be changed to Run.
	changes chan change

	mu  sync.Mutex
	all []*supervised // guarded by mu
}

// supervised is one proxy, from when it is configured to the end of its draining.
type supervised struct {
	proxy Proxy
	stop  context.CancelFunc
	done  chan struct{}
	// ending is set for good when it is told to stop; guarded by supervisor.mu.
	ending bool
	// envoy is nil while it waits for another proxy's end; guarded by supervisor.mu.
	envoy *envoy
}

// change takes proxies away by name and adds others. One that is changed is in both.
type change struct {
	gone  []string
	added []Proxy
}

func newSupervisor(build func(Proxy) *envoy, r *relay, m *metrics) *supervisor {
	return &supervisor{build: build, relay: r, metrics: m, changes: make(chan change)}
}

// envoys are those that run or are about to, draining ones too.
func (s *supervisor) envoys() []*envoy {
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
func (s *supervisor) Run(ctx context.Context, first []Proxy) {
	var wg sync.WaitGroup
	defer wg.Wait()
	s.apply(ctx, &wg, change{added: first})
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
func (s *supervisor) apply(ctx context.Context, wg *sync.WaitGroup, c change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.all {
		if slices.Contains(c.gone, p.proxy.Name) {
			p.ending = true
			p.stop()
		}
	}
	for _, added := range c.added {
		var before []<-chan struct{}
		for _, p := range s.all {
			if p.ending && (p.proxy.Name == added.Name || p.proxy.Bind == added.Bind || p.proxy.Admin == added.Admin) {
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

func (s *supervisor) run(ctx context.Context, p *supervised, before []<-chan struct{}) {
	defer p.stop()
	defer close(p.done)
	defer s.remove(p)
	for _, done := range before {
		<-done // they have been told to end
	}
	if ctx.Err() != nil {
		return
	}
	s.relay.configure(p.proxy)
	s.metrics.envoyRestarts.WithLabelValues(p.proxy.Name) // as in newMetrics
	e := s.build(p.proxy)
	s.mu.Lock()
	p.envoy = e
	s.mu.Unlock()
	_ = e.Run(ctx) // it ends with ctx, and without an error
	s.relay.unconfigure(p.proxy.Name)
	s.metrics.proxyGone(p.proxy.Name)
}

func (s *supervisor) remove(p *supervised) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(other *supervised) bool { return other == p })
}
