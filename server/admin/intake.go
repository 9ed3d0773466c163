package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/internal/parallel"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/kinds"
	"signet.example/server/policies"
	"signet.example/store"
)

// mostErrors is with how many mistakes an apply is not read any further.
const mostErrors = 1000

// mostObjects is of one change: a mesh of 10,000 virtual nodes, each with router, service,
// binding and entry, has 50,000. manyObjects are not joined when something is wrong with one.
const (
	mostObjects = 100_000
	manyObjects = 10_000
)

// intake collects what an apply brings, and everything wrong with it.
type intake struct {
	cfg         *Config
	skipForeign bool
	names       bool // manifests only name objects: what of them could not be applied is no mistake

	objects  []*kinds.Object
	given    map[kinds.Key]bool // with the mesh that each says itself
	errs     manifest.Errors
	warnings []string
	exported []string // of the warnings those about fields that an API server wrote
	empty    []string // files without any object
	foreign  int32
}

func (in *intake) bad(err error) { in.errs = append(in.errs, manifest.AsErrors(err)...) }

// largeSources is how large the files of one call are, in bytes, with which they are read
// one call after the other.
const largeSources = 1 << 20

// understand reads all files into in, before anybody else is kept waiting by a change, and no
// longer than the caller waits.
func (s *Server) understand(ctx context.Context, in *intake, sources []*api.Source) error {
	if _, err := actorOf(ctx); err != nil {
		return err
	}
	size := 0
	for _, src := range sources {
		size += len(src.GetContent())
	}
	if size > largeSources {
		select {
		case s.large <- struct{}{}:
			defer func() { <-s.large }()
		case <-ctx.Done():
			return fmt.Errorf("waiting for another large change to be read: %w", ctx.Err())
		}
	}
	for _, src := range sources {
		if err := in.read(ctx, src); err != nil {
			return err
		}
	}
	return nil
}

// read understands one file.
func (in *intake) read(ctx context.Context, src *api.Source) error {
	if len(in.errs) > mostErrors {
		return nil // said of the file before
	}
	docs, err := mesh.Split(src.GetFile(), src.GetContent())
	if err != nil {
		in.bad(err)
	} else if len(docs) == 0 {
		in.empty = append(in.empty, plain.Text(src.GetFile()))
	}
	for some := range slices.Chunk(docs, sideBySide) {
		for i, p := range in.parse(ctx, some) {
			switch d := some[i]; {
			case ctx.Err() != nil:
				return fmt.Errorf("reading %s: %w", plain.Text(src.GetFile()), ctx.Err())
			case len(in.errs) > mostErrors:
				in.bad(d.FieldError("", "there are too many mistakes; the rest is not read"))
				return nil
			case len(in.objects) >= mostObjects:
				in.bad(d.FieldError("", fmt.Sprintf("more than %d objects in one change; apply them in parts", mostObjects)))
				return nil
			default:
				in.understood(d, p)
			}
		}
	}
	return nil
}

// sideBySide is how many documents are understood before the mistakes in them are counted.
const sideBySide = 256

// parsed is what a document is understood as.
type parsed struct {
	object *kinds.Object
	err    error
}

// parse understands documents side by side: there may be all of a mesh.
func (in *intake) parse(ctx context.Context, docs []*manifest.Document) []parsed {
	all := make([]parsed, len(docs))
	parallel.Each(len(docs), func(i int) {
		if ctx.Err() == nil { // else nothing is told of it
			all[i].object, all[i].err = kinds.Parse(docs[i], in.cfg.TrustDomain)
		}
	})
	return all
}

// understood takes a document as what it is understood as.
func (in *intake) understood(d *manifest.Document, as parsed) {
	o := as.object
	switch {
	case errors.Is(as.err, kinds.ErrForeign) && in.skipForeign:
		in.foreign++
	case errors.Is(as.err, kinds.ErrForeign):
		in.bad(d.FieldError("apiVersion", fmt.Sprintf("%s of %q is not applied: it must be %s or %s; --skip-foreign leaves others out and counts them",
			plain.Text(d.Kind), plain.Text(d.APIVersion), mesh.GroupVersion, mesh.SignetGroupVersion)))
	case as.err != nil:
		in.bad(as.err)
	case in.names:
		in.objects = append(in.objects, o)
	case in.given[o.Key()]:
		in.bad(d.FieldError("metadata.name", o.Key().String()+" is given twice"))
	default:
		if in.given == nil {
			in.given = map[kinds.Key]bool{}
		}
		in.given[o.Key()] = true
		in.take(o)
	}
}

// readStored is read of what was stored under a key: of its mesh, whether or not it says so.
func (in *intake) readStored(ctx context.Context, k kinds.Key, src *api.Source) error {
	before := len(in.objects)
	if err := in.read(ctx, src); err != nil {
		return err
	}
	for _, o := range in.objects[before:] {
		if o.Resource != nil && !o.Resource.NamesMesh() {
			o.Resource.Mesh = k.Mesh
		}
	}
	return nil
}

// take refuses what this version does not translate, by name (never ignored).
func (in *intake) take(o *kinds.Object) {
	in.errs = append(in.errs, o.Refused()...)
	if g, ok := o.Value.(identity.NodeGroup); ok { // which evidence there is of hosts, no table of manifests needs to know
		in.errs = append(in.errs, o.Placed(in.cfg.CheckGroup(g))...)
	}
	for _, w := range o.Warnings() {
		if w.Exported {
			in.exported = append(in.exported, w.Error())
		} else {
			in.warnings = append(in.warnings, w.Error())
		}
	}
	in.objects = append(in.objects, o)
}

// join checks the whole that storing would give, without what is gone. Whether references resolve is
// looked at even when single documents are wrong, so that one run tells all.
func (in *intake) join(c Change, gone ...*kinds.Object) (Draft, error) {
	if len(in.errs) > 0 && len(in.objects) > manyObjects {
		return nil, inOrder(in.errs)
	}
	now := c.Now()
	if err := kinds.AssignMeshes(in.objects, kinds.Meshes(now.Graph(), now.Objects())...); err != nil {
		in.bad(err)
		return nil, in.errs
	}
	remove := make([]kinds.Key, 0, len(gone))
	for _, o := range gone {
		remove = append(remove, o.Key())
	}
	draft, err := c.With(in.objects, remove...)
	if err != nil {
		in.bad(err)
	}
	in.takeovers(now)
	in.accessLogs(now)
	if err == nil {
		in.transitions(now, draft.Model())
		in.claimed(now, draft.Model())
	}
	if len(in.errs) > 0 {
		return nil, inOrder(in.errs)
	}
	return draft, nil
}

// try translates what the writes change, as it will be read back: what xds
// cannot say is refused here, not when an agent asks.
func (in *intake) try(draft Draft, writes []store.Write) (Ready, error) {
	ready, err := draft.Try(writes, func(n proxy.Ref, err error) {
		in.bad(in.document(draft.Model(), kinds.Node(n)).FieldError("spec", fmt.Sprintf("cannot be translated: %v", err)))
	})
	if err != nil {
		return nil, err
	}
	if len(in.errs) > 0 {
		return nil, fault.New(fault.Invalid, "%s", inOrder(in.errs).Error())
	}
	return ready, nil
}

// document is where an object was written: in what is applied, if it is there.
func (in *intake) document(next Model, k kinds.Key) *manifest.Document {
	for _, o := range in.objects {
		if o.Key() == k {
			return o.Doc
		}
	}
	return next.Objects().Get(k).Doc
}

// inOrder sorts errors as a reader meets their places, each once: what is
// wrong with a document can show again in the whole.
func inOrder(errs manifest.Errors) manifest.Errors {
	slices.SortStableFunc(errs, func(a, b *manifest.Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column, strings.Compare(a.Field, b.Field))
	})
	return slices.CompactFunc(errs, func(a, b *manifest.Error) bool { return a.Error() == b.Error() })
}

// takeovers refuses an object that has the App Mesh name of a stored one which is
// another in Kubernetes' terms, as NewGraph does for two of one apply: callers of
// the one would go to the other.
func (in *intake) takeovers(now Model) {
	for _, o := range in.objects {
		old := now.Objects().Get(o.Key())
		if o.Resource == nil || old == nil || old.Resource == nil || o.Resource.SameObject(old.Resource) {
			continue
		}
		in.bad(o.Doc.FieldError("spec.awsName", fmt.Sprintf("%s has the App Mesh name %q of %s, which is stored; delete that one first if this is to take its place",
			o.Resource, o.Resource.Name, old.Resource)))
	}
}

// accessLogs refuses a new path that no host takes: whoever may write a mesh
// could else write to any file that a proxy's user can. What is stored stays, so
// that it can be applied again while its agent is away.
func (in *intake) accessLogs(now Model) {
	for _, o := range in.objects {
		file := o.AccessLog()
		if file == "" || proxy.StandardLog(file) || file == now.Objects().Get(o.Key()).AccessLog() {
			continue
		}
		dirs := in.cfg.LogDirs()
		if slices.ContainsFunc(dirs, func(dir string) bool { return proxy.LogWithin(dir, file) }) {
			continue
		}
		named := "no connected agent has one"
		if len(dirs) > 0 {
			named = "connected agents have " + strings.Join(dirs, ", ")
		}
		in.bad(o.Doc.FieldError("spec.logging.accessLog.file.path", fmt.Sprintf(
			"%q is not written: use /dev/stdout or /dev/stderr, or a file in the folder that the agent's operator names as access_log_dir; %s", plain.Text(file), named)))
	}
}

// transitions refuses changes that break by definition (R12).
func (in *intake) transitions(now, next Model) {
	for _, o := range in.objects {
		old := now.Objects().Get(o.Key())
		if old == nil || old.Resource == nil || o.Resource == nil {
			continue
		}
		before, ok1 := old.Resource.Spec.(*mesh.VirtualNodeSpec)
		after, ok2 := next.Objects().Get(o.Key()).Resource.Spec.(*mesh.VirtualNodeSpec)
		if !ok1 || !ok2 {
			continue
		}
		for _, e := range mesh.CheckTransition(before, after) {
			in.bad(o.Doc.FieldError(e.Field, e.Msg))
		}
	}
}

// claimed refuses a virtual node or gateway that would make a package of the policy in
// force mean two: neither of them would be allowed by it any more.
func (in *intake) claimed(now, next Model) {
	var fresh []*mesh.Resource
	for _, o := range in.objects {
		if o.Resource != nil && (o.Resource.Kind == mesh.KindVirtualNode || o.Resource.Kind == mesh.KindVirtualGateway) && now.Objects().Get(o.Key()) == nil {
			fresh = append(fresh, o.Resource)
		}
	}
	if len(fresh) == 0 {
		return
	}
	packages := slices.DeleteFunc(slices.Clone(in.cfg.Policies.PackagesInForce()), func(p policy.Package) bool {
		return !slices.ContainsFunc(fresh, func(n *mesh.Resource) bool { return p.Means(proxy.Node(n.Mesh, n.Name)) })
	})
	for _, p := range policies.Contested(next.Graph(), packages) {
		before, after := policies.Claims(now.Graph(), p), policies.Claims(next.Graph(), p)
		for _, n := range after {
			o := next.Objects().Get(kinds.Node(n))
			if slices.Contains(before, n) || !slices.Contains(in.objects, o) {
				continue
			}
			in.bad(o.Doc.FieldError("metadata.name", "the policy in force does not tell it from another: "+policies.ContestedText(p, after)))
		}
	}
}
