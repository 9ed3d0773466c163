package issuance

import "slices"

// Share is whose a request is. Everybody who asks has a turn before anybody has a second, and
// those that joined by the credentials of one principal, such as a role of AWS, are one of them.
type Share struct{ Principal, Agent string }

// path is by what its turns are found: the agents of a principal take its turns in turn.
func (s Share) path() []string {
	if s.Principal == "" {
		return []string{s.Agent} // no principal has an agent's name: it has a colon
	}
	return []string{s.Principal, s.Agent}
}

// turns are requests that wait, by what their path names. It costs as much as a path is long,
// however many wait.
type turns struct {
	requests []*request // at the end of a path
	order    []string   // who has any, and whose turn is next first
	of       map[string]*turns
}

func (t *turns) empty() bool { return len(t.requests)+len(t.order) == 0 }

func (t *turns) push(r *request, path ...string) {
	if len(path) == 0 {
		t.requests = append(t.requests, r)
		return
	}
	of := t.of[path[0]]
	if of == nil {
		if t.of == nil {
			t.of = map[string]*turns{}
		}
		of = &turns{}
		t.of[path[0]], t.order = of, append(t.order, path[0])
	}
	of.push(r, path[1:]...)
}

// pop returns the request whose turn it is, nil where none waits.
func (t *turns) pop() (r *request) {
	if len(t.requests) > 0 {
		r, t.requests = t.requests[0], t.requests[1:]
		return r
	}
	if len(t.order) == 0 {
		return nil
	}
	name := t.order[0]
	r, t.order = t.of[name].pop(), t.order[1:]
	if t.of[name].empty() {
		delete(t.of, name)
	} else {
		t.order = append(t.order, name)
	}
	return r
}

// remove takes out a request that nobody waits for any more, and reports whether it was there.
func (t *turns) remove(r *request, path ...string) bool {
	if len(path) == 0 {
		n := len(t.requests)
		t.requests = slices.DeleteFunc(t.requests, func(o *request) bool { return o == r })
		return len(t.requests) < n
	}
	of := t.of[path[0]]
	if of == nil || !of.remove(r, path[1:]...) {
		return false
	}
	if of.empty() {
		delete(t.of, path[0])
		t.order = slices.DeleteFunc(t.order, func(o string) bool { return o == path[0] })
	}
	return true
}
