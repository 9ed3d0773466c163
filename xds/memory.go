package xds

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"signet.example/mesh"
)

// Memory has what services came to when they were translated the last time, for whoever
// calls them: of a caller of 50 services of which one has another weight, 49 are as they
// were. And it has the parts that views have in common. It is safe for concurrent use; the
// zero value is ready.
type Memory struct {
	mu       sync.Mutex
	services map[mesh.Name]remembered
	parts    map[part]*anypb.Any
	bytes    int
}

// mostRemembered is what a Memory holds before it begins anew: of what went away it does not
// know.
const mostRemembered = 16 << 20

// remembered is a service, encoded, and all that this depends on. Objects of a graph are
// immutable: the same one says the same.
type remembered struct {
	service  *mesh.VirtualService
	node     *mesh.VirtualNode
	router   *mesh.VirtualRouter
	targets  []target
	anyAgain bool // as proxy.UnsafeRepeatAnyMethod
	hosts    []encodedHost
}

// target is where a route of a service leads: a node, by the name of its cluster, "" for none.
type target struct {
	node    *mesh.VirtualNode
	cluster string
}

// encodedHost is a virtual host that was validated.
type encodedHost struct {
	name string
	body []byte
}

// sameInputs reports whether r is of what o is of.
func (r remembered) sameInputs(o remembered) bool {
	return r.service == o.service && r.node == o.node && r.router == o.router && r.anyAgain == o.anyAgain && slices.Equal(r.targets, o.targets)
}

// recall returns the hosts of a service, made by f where they are not remembered.
func (m *Memory) recall(of remembered, f func() []encodedHost) []encodedHost {
	if m == nil {
		return f()
	}
	name := of.service.GraphName()
	m.mu.Lock()
	has, ok := m.services[name]
	m.mu.Unlock()
	if ok && has.sameInputs(of) {
		return has.hosts
	}
	if of.hosts = f(); of.hosts == nil { // it failed
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes -= size(m.services[name].hosts)
	m.makeRoom(size(of.hosts))
	m.services[name] = of
	return of.hosts
}

// part returns what f makes of a part, unless it is remembered.
func (m *Memory) part(of part, f func() *anypb.Any) *anypb.Any {
	if m == nil {
		return f()
	}
	m.mu.Lock()
	has := m.parts[of]
	m.mu.Unlock()
	if has != nil {
		return has
	}
	made := f()
	if made == nil { // it failed
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.parts[of] == nil { // else by another goroutine meanwhile
		m.makeRoom(len(made.GetValue()))
		m.parts[of] = made
	}
	return made
}

// makeRoom counts what is about to be remembered, and forgets all else where it is too much.
func (m *Memory) makeRoom(bytes int) {
	if m.bytes += bytes; m.services == nil || m.bytes > mostRemembered {
		m.services, m.parts, m.bytes = map[mesh.Name]remembered{}, map[part]*anypb.Any{}, bytes
	}
}

func size(hosts []encodedHost) int {
	n := 0
	for _, h := range hosts {
		n += len(h.body)
	}
	return n
}

// The fields of a RouteConfiguration that we write.
const (
	routesName  protowire.Number = 1
	routesHosts protowire.Number = 2
)

// routeConfiguration is a RouteConfiguration as it is encoded.
func routeConfiguration(name string, hosts []encodedHost) []byte {
	size := len(name)
	for _, h := range hosts {
		size += len(h.body)
	}
	body := make([]byte, 0, size+8*(len(hosts)+1))
	body = protowire.AppendString(protowire.AppendTag(body, routesName, protowire.BytesType), name)
	for _, h := range hosts {
		body = protowire.AppendBytes(protowire.AppendTag(body, routesHosts, protowire.BytesType), h.body)
	}
	return body
}
