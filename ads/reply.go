package ads

import (
	"slices"
	"strings"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
)

// maxMessage bounds what is kept of a client's reason.
const maxMessage = 1024

// reply takes the client's answer to a response: an acknowledgement, or with
// detail a refusal, which it returns. A nonce that is not on its way is stale
// or another stream's, and ignored.
func (m *machine) reply(t *topic, nonce string, detail *statuspb.Status) []Rejection {
	i := slices.IndexFunc(t.flight, func(r response) bool { return r.nonce == nonce })
	if nonce == "" || i < 0 {
		return nil
	}
	r := t.flight[i]
	if m.delta {
		t.flight = slices.Delete(t.flight, i, i+1)
	} else {
		// A state-of-the-world client that was busy answers only the latest.
		r = join(t.flight[:i+1])
		t.flight = slices.Delete(t.flight, 0, i+1)
	}
	if len(t.flight) == 0 {
		t.flight = nil
	}
	if detail == nil {
		m.accept(t, r)
		return nil
	}
	return m.refuse(t, r, clean(detail.GetMessage()))
}

// join makes one response of several that are answered together.
func join(rs []response) response {
	last := rs[len(rs)-1]
	for i := len(rs) - 2; i >= 0; i-- {
		last.changed = patch(rs[i].changed, last.changed, func(*Resource) bool { return true })
	}
	return last
}

// accept moves what the client acknowledged, as far as it is still wanted.
func (m *machine) accept(t *topic, r response) {
	if len(r.changed) > 0 {
		m.event(Acked, t.url, "", r.changed...)
	}
	if len(t.flight) == 0 && same(r.after, t.sent) {
		t.acked = t.sent
		return
	}
	t.settle(r)
}

// settle puts what is still wanted of a response into acked, even if a newer
// version is on its way, and drops what is not.
func (t *topic) settle(r response) {
	still := patch(nil, r.changed, func(c *Resource) bool {
		s, a := find(t.sent, c.Name), find(t.acked, c.Name)
		return s != nil && (a == nil || a.Version != s.Version)
	})
	t.acked = patch(t.acked, still, func(c *Resource) bool {
		_, gone := slices.BinarySearch(r.removed, c.Name)
		return !gone || find(t.sent, c.Name) != nil
	})
}

// refuse works out which resources a refusal means. Envoy keeps what it had of
// those, so they go back to what was acknowledged, and so does the rest of the
// response, to be sent again without them: a part of it may have been applied.
func (m *machine) refuse(t *topic, r response, message string) []Rejection {
	var doubted []*Resource
	for _, c := range r.changed {
		if has := find(t.acked, c.Name); has == nil || has.Version != c.Version {
			doubted = append(doubted, c)
		}
	}
	if len(doubted) == 0 {
		m.event(Rejected, t.url, message) // nothing to do better than what was sent
		t.settle(response{removed: r.removed})
		return nil
	}
	blamed := slices.DeleteFunc(slices.Clone(doubted), func(c *Resource) bool { return !mentions(message, c.Name) })
	if len(blamed) == 0 {
		blamed = doubted
	}
	m.event(Rejected, t.url, message, blamed...)
	var rejs []Rejection
	for _, c := range blamed {
		rejs = append(rejs, Rejection{Type: c.Type, Name: c.Name, Version: c.Version, Message: message, Client: m.client})
	}
	if m.mode != Proxy {
		// An agent that cannot read a resource will not read it better next
		// time; it is not sent again until it changes.
		return nil
	}
	t.revert(doubted)
	return rejs
}

// revert takes resources back to what the client acknowledged of them.
func (t *topic) revert(doubted []*Resource) {
	t.sent = patch(t.sent, nil, func(s *Resource) bool {
		d := find(doubted, s.Name)
		return d == nil || d.Version != s.Version || find(t.acked, s.Name) != nil
	})
	for i, s := range t.sent { // patch made a list of our own
		if d := find(doubted, s.Name); d != nil && d.Version == s.Version {
			t.sent[i] = find(t.acked, s.Name)
		}
	}
}

// mentions reports whether an error message names a resource: as a whole word, as
// "a" also occurs in "a1", "a.b" and "cluster".
func mentions(message, name string) bool {
	for at := 0; ; {
		i := strings.Index(message[at:], name)
		if i < 0 {
			return false
		}
		i += at
		end := i + len(name)
		if (i == 0 || !inName(message[i-1])) && endsName(message[end:]) {
			return true
		}
		at = i + 1
	}
}

// inName reports whether names are made of a byte.
func inName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_-./:|", c) >= 0
}

// endsName reports whether a name ends before rest; punctuation may follow it.
func endsName(rest string) bool {
	rest = strings.TrimLeft(rest, ".:")
	return rest == "" || !inName(rest[0])
}

// clean makes a client's message fit for logs: valid, short.
func clean(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage]
	}
	return strings.ToValidUTF8(s, "")
}
