package wayout

import (
	"fmt"
	"strconv"
	"strings"

	"signet.example/proxy"
)

// front is what stands behind one proxy: the application, as the proxy's own
// configuration has it. It is a key.
type front struct {
	node  string // as an xDS node id
	app   proxy.Place
	ports string // as text; see list
}

// frontOf is that of a proxy that runs for ref in a shape and listens at these ports.
func frontOf(ref proxy.Ref, sh proxy.Shape, ports []uint32) (front, error) {
	app, err := proxy.ParsePlace(sh.App)
	if err != nil {
		return front{}, fmt.Errorf("the application: %w", err)
	}
	var text []string
	for _, p := range ports {
		text = append(text, strconv.FormatUint(uint64(p), 10))
	}
	return front{node: ref.String(), app: app, ports: strings.Join(text, ", ")}, nil
}

// list is the ports as numbers.
func (f front) list() []uint16 {
	var out []uint16
	for text := range strings.SplitSeq(f.ports, ", ") {
		if n, err := strconv.ParseUint(text, 10, 16); err == nil {
			out = append(out, uint16(n))
		}
	}
	return out
}

// key is what the application is remembered by.
func (f front) key() string { return f.node + "@" + f.app.String() }
