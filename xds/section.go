package xds

import (
	"slices"
	"sync"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
)

// Past has the sections of views as they were made the last time: of a caller of 50 services of
// which one has another weight, no cluster and no listener is another one. It is safe for concurrent
// use; the zero value is ready.
type Past struct {
	mu       sync.Mutex
	sections map[sectionKey]*section
	bytes    int
}

// sectionKey names a section of the views of a virtual node. The shape is zero where all have it.
type sectionKey struct {
	node  proxy.Ref
	shape proxy.Shape
	name  string
}

// section is some resources of a view, and all that they were made of.
type section struct {
	of        *mesh.VirtualNode // whose view it is
	life      lifetimes
	given     any       // what else it was made of, comparable
	answers   []stillSo // what was read
	resources []*ads.Resource
}

// section adds the resources that f adds, made of the node, the shape, what is given and what f
// reads: those of the last time, where each of these is what it was.
func (b *builder) section(name string, given any, f func()) {
	past := b.read.in.Past
	if past == nil {
		f()
		return
	}
	k := sectionKey{b.node.Ref, b.shape, name}
	if s := past.get(k); s != nil && s.of == b.node && s.life == b.life && s.given == given && s.stillSo(&b.read.in) {
		b.resources = append(b.resources, s.resources...)
		return
	}
	before := len(b.resources)
	answers := b.read.note(f)
	if b.err == nil {
		past.put(k, &section{b.node, b.life, given, answers, slices.Clone(b.resources[before:])})
	}
}

func (s *section) stillSo(in *Input) bool {
	for _, so := range s.answers {
		if !so(in) {
			return false
		}
	}
	return true
}

func (p *Past) get(k sectionKey) *section {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sections[k]
}

func (p *Past) put(k sectionKey, s *section) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes += s.size() - p.sections[k].size(); p.sections == nil || p.bytes > mostRemembered {
		p.sections, p.bytes = map[sectionKey]*section{}, s.size()
	}
	p.sections[k] = s
}

// answerSize is about what one answer takes, in bytes.
const answerSize = 128

func (s *section) size() int {
	if s == nil {
		return 0
	}
	n := answerSize * len(s.answers)
	for _, r := range s.resources {
		n += len(r.Body)
	}
	return n
}
