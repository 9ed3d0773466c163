package envoydump

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh/dialect"
	"signet.example/proxy"
)

// Dumps are those of all files.
type Dumps struct {
	drafts *dialect.Drafts
	nodes  map[string]*node    // by mesh and name
	calls  map[string]*service // by mesh and name
	order  []string            // of the keys of both, as they were first seen
}

// New collects dumps for drafts, which [Dumps.Add] gives what came of them.
func New(d *dialect.Drafts) *Dumps {
	return &Dumps{drafts: d, nodes: map[string]*node{}, calls: map[string]*service{}}
}

// dump is one file.
type dump struct {
	all  *Dumps
	file string
	mesh string
	own  string // the virtual node whose proxy it is of
	// What stands before the bootstrap has to wait for it.
	clusters []placed[cluster]
	warming  []placed[cluster] // newer ones, which Envoy does not use before it has found their hosts
	routes   []placed[routeConfig]
	kept     int // of mostResources
}

// placed is something with the line where it begins.
type placed[T any] struct {
	is   T
	line int
}

// Read reads one file.
func (a *Dumps) Read(f dialect.File) {
	a.drafts.File(f.Name)
	d := &dump{all: a, file: f.Name}
	line, err := d.read(f.Content)
	if err == nil {
		err = d.named()
	}
	if err != nil {
		a.drafts.Wrong(manifest.Errors{{File: f.Name, Line: line, Column: 1, Msg: err.Error()}})
		return
	}
	d.facts()
}

// mostResources bounds what is kept of a dump, mostRoutes those of one host: App Mesh had
// 50 backends of a node, and 50 routes of a router.
const mostResources, mostRoutes = 50_000, 500

// read decodes a dump, one resource at a time.
func (d *dump) read(content []byte) (line int, err error) {
	at := &lines{content: content}
	dec := json.NewDecoder(bytes.NewReader(content))
	fail := func(err error) (int, error) {
		return at.of(int(dec.InputOffset())), fmt.Errorf("is no config dump of Envoy: %w", err)
	}
	if err := expect(dec, json.Delim('{')); err != nil {
		return fail(err)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return fail(err)
		}
		if key != "configs" {
			if err := dec.Decode(&json.RawMessage{}); err != nil {
				return fail(err)
			}
			continue
		}
		if err := expect(dec, json.Delim('[')); err != nil {
			return fail(err)
		}
		for dec.More() {
			if err := d.config(dec, at); err != nil {
				return fail(err)
			}
		}
		if err := expect(dec, json.Delim(']')); err != nil {
			return fail(err)
		}
	}
	return 1, nil
}

// config is one of the dump's parts, each of one type.
func (d *dump) config(dec *json.Decoder, at *lines) error {
	if err := expect(dec, json.Delim('{')); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		switch key {
		case "bootstrap":
			var b struct {
				Node struct{ ID string } `json:"node"`
			}
			if err := dec.Decode(&b); err != nil {
				return err
			}
			if err := d.is(b.Node.ID); err != nil {
				return err
			}
		case "dynamic_active_clusters", "static_clusters":
			err = d.clustersOf(dec, at, &d.clusters)
		case "dynamic_warming_clusters":
			err = d.clustersOf(dec, at, &d.warming)
		case "dynamic_route_configs", "static_route_configs":
			err = each(dec, at, func(r struct {
				Config routeConfig `json:"route_config"`
			}, line int,
			) error {
				d.routes = append(d.routes, placed[routeConfig]{r.Config, line})
				return d.bounded(r.Config.Hosts...)
			})
		default:
			err = dec.Decode(&json.RawMessage{})
		}
		if err != nil {
			return err
		}
	}
	return expect(dec, json.Delim('}'))
}

func (d *dump) clustersOf(dec *json.Decoder, at *lines, to *[]placed[cluster]) error {
	return each(dec, at, func(c struct{ Cluster cluster }, line int) error {
		*to = append(*to, placed[cluster]{c.Cluster, line})
		return d.bounded()
	})
}

// latest is what App Mesh sent last of each cluster.
func (d *dump) latest() []placed[cluster] {
	warming := map[string]bool{}
	for _, c := range d.warming {
		warming[c.is.Name] = true
	}
	replaced := func(c placed[cluster]) bool { return warming[c.is.Name] }
	return slices.Concat(slices.DeleteFunc(slices.Clone(d.clusters), replaced), d.warming)
}

// bounded counts what is kept.
func (d *dump) bounded(hosts ...virtualHost) error {
	d.kept++
	for _, h := range hosts {
		if d.kept += 1 + len(h.Routes); len(h.Routes) > mostRoutes {
			return fmt.Errorf("virtual host %q has more than %d routes", h.Name, mostRoutes)
		}
	}
	if d.kept > mostResources {
		return fmt.Errorf("it has more than %d clusters, hosts and routes", mostResources)
	}
	return nil
}

// is notes whose dump it is.
func (d *dump) is(id string) error {
	if id == "" {
		return nil
	}
	ref, err := proxy.ParseRef(id)
	switch {
	case err != nil:
		return nil // named says what to do
	case ref.Gateway():
		return fmt.Errorf("it is of virtual gateway %s of mesh %s: a gateway's dump has its routes and those of its services made into one, and is not read; give `aws appmesh describe-virtual-gateway` and `describe-gateway-route`", ref.Name, ref.Mesh)
	}
	d.mesh, d.own = ref.Mesh, ref.Name
	return nil
}

// ingress is the cluster of the application behind a proxy.
var ingress = regexp.MustCompile(`^cds_ingress_(.+)_(http|http2|grpc|tcp)_(\d{1,5})$`)

// named finds the mesh of a dump whose bootstrap does not tell it.
func (d *dump) named() error {
	if d.mesh == "" {
		d.mesh = d.all.drafts.Options.Mesh
	}
	if d.mesh == "" {
		return errors.New("its bootstrap does not name a virtual node as mesh/MESH/virtualNode/NAME: say with --mesh which mesh it is of")
	}
	for _, c := range d.latest() {
		if m := ingress.FindStringSubmatch(c.is.Name); m != nil && d.own == "" {
			if name, ok := strings.CutPrefix(m[1], d.mesh+"_"); ok {
				d.own = name
			}
		}
	}
	return nil
}

func expect(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%v stands where %v has to", got, want)
	}
	return nil
}

// each decodes the items of a list.
func each[T any](dec *json.Decoder, at *lines, f func(item T, line int) error) error {
	if err := expect(dec, json.Delim('[')); err != nil {
		return err
	}
	for dec.More() {
		line := at.of(int(dec.InputOffset()) + 1)
		var item T
		if err := dec.Decode(&item); err != nil {
			return err
		}
		if err := f(item, line); err != nil {
			return err
		}
	}
	return expect(dec, json.Delim(']'))
}

// lines finds lines of a text, each behind the last one that was asked for.
type lines struct {
	content    []byte
	seen, line int
}

func (l *lines) of(offset int) int {
	for ; l.seen < offset && l.seen < len(l.content); l.seen++ {
		if l.content[l.seen] == '\n' {
			l.line++
		}
	}
	return l.line + 1
}
