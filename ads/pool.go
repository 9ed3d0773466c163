package ads

import (
	"bytes"
	"runtime"
	"sync"
	"weak"
)

// Pool lets many Clients of one agent, or many views of one server, hold equal
// resources once: fifty virtual nodes of a mesh see mostly the same clusters, and
// replicas of one the same of everything but their addresses. It keeps nothing alive
// that nobody uses. It is safe for concurrent use; the zero value is ready.
type Pool struct {
	mu        sync.Mutex
	resources map[poolKey]weak.Pointer[Resource]
}

type poolKey struct{ typeURL, name, version string }

// intern returns the pool's resource that equals r, which may be r.
func (p *Pool) intern(r *Resource) *Resource {
	if p == nil {
		return r
	}
	k := poolKey{r.Type, r.Name, r.Version}
	p.mu.Lock()
	defer p.mu.Unlock()
	if has := p.resources[k].Value(); has != nil && bytes.Equal(has.Body, r.Body) {
		return has
	}
	if p.resources == nil {
		p.resources = make(map[poolKey]weak.Pointer[Resource])
	}
	w := weak.Make(r)
	p.resources[k] = w
	runtime.AddCleanup(r, func(k poolKey) { p.forget(k, w) }, k)
	return r
}

// Share returns a set that equals s, of the pool's resources.
func (p *Pool) Share(s *Set) *Set {
	shared := &Set{types: make(map[string]group, len(s.types)), version: s.version, n: s.n}
	for t, g := range s.types {
		rs := make([]*Resource, len(g.rs))
		for i, r := range g.rs {
			rs[i] = p.intern(r)
		}
		shared.types[t] = group{rs: rs, version: g.version}
	}
	return shared
}

// forget drops an entry whose resource is gone, unless it was replaced since.
func (p *Pool) forget(k poolKey, w weak.Pointer[Resource]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resources[k] == w {
		delete(p.resources, k)
	}
}

// Len returns how many different resources are in use.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.resources)
}
