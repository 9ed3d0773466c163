package envoydump

import (
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

// errGateway is what a dump is refused for that is one of Envoy, and not of a virtual node's.
var errGateway = errors.New("is of virtual gateway")

// read decodes a dump, one resource at a time.
func (d *dump) read(content []byte) (line int, err error) {
	in := dialect.NewStream(content)
	fail := func(err error) (int, error) {
		line, _ := in.Place(0)
		if errors.Is(err, errGateway) { // a good dump, whose proxy is another kind
			return line, err
		}
		return line, fmt.Errorf("is no config dump of Envoy: %w", err)
	}
	if err := in.Delim('{'); err != nil {
		return fail(err)
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return fail(err)
		}
		if key != "configs" {
			if err := in.Skip(); err != nil {
				return fail(err)
			}
			continue
		}
		if err := in.Delim('['); err != nil {
			return fail(err)
		}
		for in.More() {
			if err := d.config(in); err != nil {
				return fail(err)
			}
		}
		if err := in.Delim(']'); err != nil {
			return fail(err)
		}
	}
	return 1, nil
}

// config is one of the dump's parts, each of one type.
func (d *dump) config(in *dialect.Stream) error {
	if err := in.Delim('{'); err != nil {
		return err
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return err
		}
		switch key {
		case "bootstrap":
			var b struct {
				Node struct{ ID string } `json:"node"`
			}
			if err := in.Decode(&b); err != nil {
				return err
			}
			if err := d.is(b.Node.ID); err != nil {
				return err
			}
		case "dynamic_active_clusters", "static_clusters":
			err = d.clustersOf(in, &d.clusters)
		case "dynamic_warming_clusters":
			err = d.clustersOf(in, &d.warming)
		case "dynamic_route_configs", "static_route_configs":
			err = each(in, func(r struct {
				Config routeConfig `json:"route_config"`
			}, line int,
			) error {
				d.routes = append(d.routes, placed[routeConfig]{r.Config, line})
				return d.bounded(r.Config.Hosts...)
			})
		default:
			err = in.Skip()
		}
		if err != nil {
			return err
		}
	}
	return in.Delim('}')
}

func (d *dump) clustersOf(in *dialect.Stream, to *[]placed[cluster]) error {
	return each(in, func(c struct{ Cluster cluster }, line int) error {
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
		return fmt.Errorf("%w %s of mesh %s: a gateway's dump has its routes and those of its services made into one, and is not read; write the VirtualGateway and its GatewayRoutes as manifests, or give what `aws appmesh describe-virtual-gateway` and `describe-gateway-route` answered while App Mesh was there", errGateway, ref.Name, ref.Mesh)
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

// each decodes the items of a list.
func each[T any](in *dialect.Stream, f func(item T, line int) error) error {
	if err := in.Delim('['); err != nil {
		return err
	}
	for in.More() {
		line, _ := in.Place(-1)
		var item T
		if err := in.Decode(&item); err != nil {
			return err
		}
		if err := f(item, line); err != nil {
			return err
		}
	}
	return in.Delim(']')
}
