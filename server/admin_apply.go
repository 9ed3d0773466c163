package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/authz/jwt"
	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/proxy"
	"signet.example/server/check"
	"signet.example/server/fault"
	"signet.example/server/issuers"
	"signet.example/server/kinds"
	"signet.example/server/policies"
	"signet.example/server/views"
	"signet.example/store"
)

// writeLock serialises admin writes: each is checked against all that is stored,
// so nothing may be stored between the check and the write.
type writeLock chan struct{}

func (l writeLock) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l writeLock) unlock() { <-l }

// begin is the beginning of every write: who writes, and the newest model, which
// no other admin changes until unlock.
func (a *admin) begin(ctx context.Context) (actor string, newest *model, unlock func(), err error) {
	if actor, err = actorOf(ctx); err != nil {
		return "", nil, nil, err
	}
	if err := a.writes.lock(ctx); err != nil {
		return "", nil, nil, err
	}
	if newest, err = a.reload(ctx); err != nil {
		a.writes.unlock()
		return "", nil, nil, err
	}
	return actor, newest, a.writes.unlock, nil
}

// Apply writes all documents or none. Every mistake of every file is in the error.
func (a *admin) Apply(ctx context.Context, req *api.ApplyRequest) (*api.ApplyResponse, error) {
	resp, applied, err := a.apply(ctx, req)
	if err != nil {
		return nil, err
	}
	own := len(resp.GetWarnings()) - int(resp.GetExportedWarnings())
	resp.Warnings = slices.Insert(resp.GetWarnings(), own, issuers.Warnings(ctx, applied)...) // after the lock: others need not wait for it
	return resp, nil
}

// apply is Apply, and returns the issuers that are new or changed.
func (a *admin) apply(ctx context.Context, req *api.ApplyRequest) (*api.ApplyResponse, []jwt.Issuer, error) {
	actor, now, unlock, err := a.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	in := &intake{server: a.server, skipForeign: req.GetSkipForeign()}
	for _, src := range req.GetSources() {
		in.read(src)
	}
	next, err := in.join(now)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "%s", err.Error())
	}
	changes, writes := changesOf(now, in.objects)
	p, err := in.plan(now, next, writes)
	if err != nil {
		return nil, nil, err
	}
	keys := make([]kinds.Key, 0, len(in.objects))
	for _, o := range in.objects {
		keys = append(keys, o.Key())
	}
	resp := &api.ApplyResponse{
		Changes: changes, Revision: now.revision, SkippedForeign: in.foreign,
		Warnings:         slices.Concat(in.warnings, a.warn(now, next, keys...), in.exported),
		ExportedWarnings: int32(len(in.exported)), //nolint:gosec // bounded by what a manifest may have
	}
	var applied []jwt.Issuer
	for _, w := range writes {
		if is, ok := next.objects.Get(kinds.Key{Kind: w.Kind, Mesh: w.Mesh, Name: w.Name}).Value.(jwt.Issuer); ok {
			applied = append(applied, is)
		}
	}
	switch {
	case req.GetDryRun():
		return resp, applied, nil
	case len(writes) == 0:
		return resp, nil, a.intent(ctx, "Apply", req)
	}
	resp.Revision, err = a.write(ctx, actor, describe(req), p)
	return resp, applied, err
}

// warn is all that is said of a change before it is made: of what it brings, and of
// those whom it leaves without.
func (a *admin) warn(before, after *model, named ...kinds.Key) []string {
	return check.Warnings(before, after, a.roster.BySelectors(), a.endpoints.Snapshot(), named...)
}

// plan is a change that was checked against all that is stored.
type plan struct {
	writes []store.Write
	next   *model           // what the store will have when it has taken them
	tried  *views.Candidate // what next serves
}

// write stores and serves: when it returns, the views have the change.
func (a *admin) write(ctx context.Context, actor, asked string, p plan) (uint64, error) {
	a.loading.Lock()
	defer a.loading.Unlock()
	revision, err := a.store.Apply(ctx, actor, asked, p.writes)
	if err != nil {
		return 0, fmt.Errorf("%w: write to the store: %w", fault.Unavailable, err)
	}
	if revision == p.next.revision { // nothing came between, so there is nothing to read
		a.install(p.next)
		a.views.Rebuild(ctx, p.tried)
		return revision, nil
	}
	if _, err := a.catchUp(ctx); err != nil { // it is stored: watch tries again
		return revision, fmt.Errorf("stored as revision %d, not yet served: %w", revision, err)
	}
	return revision, nil
}

// intake collects what an apply brings, and everything wrong with it.
type intake struct {
	*server
	skipForeign bool

	objects  []*kinds.Object
	errs     manifest.Errors
	warnings []string
	exported []string // of the warnings those about fields that an API server wrote
	foreign  int32
}

func (in *intake) bad(err error) { in.errs = append(in.errs, manifest.AsErrors(err)...) }

// read understands one file.
func (in *intake) read(src *api.Source) {
	docs, err := mesh.Split(src.GetFile(), src.GetContent())
	if err != nil {
		in.bad(err)
	}
	for _, d := range docs {
		o, err := kinds.Parse(d, in.td)
		switch {
		case errors.Is(err, kinds.ErrForeign) && in.skipForeign:
			in.foreign++
		case errors.Is(err, kinds.ErrForeign):
			in.bad(d.FieldError("apiVersion", fmt.Sprintf("%s of %q is not applied: it must be %s or %s; --skip-foreign leaves others out and counts them",
				plain.Text(d.Kind), plain.Text(d.APIVersion), mesh.GroupVersion, mesh.SignetGroupVersion)))
		case err != nil:
			in.bad(err)
		default:
			in.take(o)
		}
	}
}

// take refuses what this version does not translate, by name (never ignored).
func (in *intake) take(o *kinds.Object) {
	in.errs = append(in.errs, o.Refused()...)
	if g, ok := o.Value.(identity.NodeGroup); ok { // which evidence there is of hosts, no table of manifests needs to know
		in.errs = append(in.errs, o.Placed(nodes.CheckGroup(g))...)
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

// join checks the whole that storing would give. Whether references resolve is
// looked at even when single documents are wrong, so that one run tells all.
func (in *intake) join(now *model) (*model, error) {
	if err := in.assign(now); err != nil {
		in.bad(err)
		return nil, in.errs
	}
	next, err := now.with(in.objects)
	if err != nil {
		in.bad(err)
	}
	in.takeovers(now)
	in.accessLogs(now)
	if next != nil {
		in.transitions(now, next)
		in.claimed(now, next)
	}
	if len(in.errs) > 0 {
		return nil, inOrder(in.errs)
	}
	return next, nil
}

// plan translates what the writes change, as it will be read back: what xds
// cannot say is refused here, not when an agent asks.
func (in *intake) plan(now, next *model, writes []store.Write) (plan, error) {
	stored, err := now.written(writes, next)
	if err != nil {
		return plan{}, err
	}
	tried := in.views.Try(now, stored, func(n proxy.Ref, err error) {
		in.bad(in.document(next, kinds.Node(n)).FieldError("spec", fmt.Sprintf("cannot be translated: %v", err)))
	})
	if len(in.errs) > 0 {
		return plan{}, fault.New(fault.Invalid, "%s", inOrder(in.errs).Error())
	}
	return plan{writes, stored, tried}, nil
}

// document is where an object was written: in what is applied, if it is there.
func (in *intake) document(next *model, k kinds.Key) *manifest.Document {
	for _, o := range in.objects {
		if o.Key() == k {
			return o.Doc
		}
	}
	return next.objects.Get(k).Doc
}

// inOrder sorts errors as a reader meets their places, each once: what is
// wrong with a document can show again in the whole.
func inOrder(errs manifest.Errors) manifest.Errors {
	slices.SortStableFunc(errs, func(a, b *manifest.Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column, strings.Compare(a.Field, b.Field))
	})
	return slices.CompactFunc(errs, func(a, b *manifest.Error) bool { return a.Error() == b.Error() })
}

// assign gives each resource its mesh: what it names, or the only one there is.
func (in *intake) assign(now *model) error { return assignMeshes(now.resources(in.objects)) }

// takeovers refuses an object that has the App Mesh name of a stored one which is
// another in Kubernetes' terms, as NewGraph does for two of one apply: callers of
// the one would go to the other.
func (in *intake) takeovers(now *model) {
	for _, o := range in.objects {
		old := now.objects.Get(o.Key())
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
func (in *intake) accessLogs(now *model) {
	for _, o := range in.objects {
		file := o.AccessLog()
		if file == "" || proxy.StandardLog(file) || file == now.objects.Get(o.Key()).AccessLog() {
			continue
		}
		dirs := in.access.logDirs()
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
func (in *intake) transitions(now, next *model) {
	for _, o := range in.objects {
		old := now.objects.Get(o.Key())
		if old == nil || old.Resource == nil || o.Resource == nil {
			continue
		}
		before, ok1 := old.Resource.Spec.(*mesh.VirtualNodeSpec)
		after, ok2 := next.objects.Get(o.Key()).Resource.Spec.(*mesh.VirtualNodeSpec)
		if !ok1 || !ok2 {
			continue
		}
		for _, e := range mesh.CheckTransition(before, after) {
			in.bad(o.Doc.FieldError(e.Field, e.Msg))
		}
	}
}

func sortedObjects(m *model, kind string) []kinds.Key {
	var keys []kinds.Key
	for k := range m.objects.All() {
		if k.Kind == kind {
			keys = append(keys, k)
		}
	}
	return keys
}

// changesOf compares with what is stored, by canonical manifest.
func changesOf(now *model, objects []*kinds.Object) ([]*api.Change, []store.Write) {
	var changes []*api.Change
	var writes []store.Write
	for _, o := range objects {
		after, k := o.Encode(), o.Key()
		c := &api.Change{Action: api.Change_CREATED.Enum(), Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, After: string(after)}
		if old := now.objects.Get(k); old != nil {
			before := old.Encode()
			c.Action, c.Before = api.Change_CONFIGURED.Enum(), string(before)
			if bytes.Equal(before, after) {
				c.Action = api.Change_UNCHANGED.Enum()
			}
		}
		changes = append(changes, c)
		if c.GetAction() != api.Change_UNCHANGED {
			writes = append(writes, store.Write{Object: store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Manifest: after}})
		}
	}
	return changes, writes
}

// claimed refuses a virtual node that would make a package of the policy in
// force mean two: neither of them would be allowed by it any more.
func (in *intake) claimed(now, next *model) {
	var fresh []*mesh.Resource
	for _, o := range in.objects {
		if o.Resource != nil && o.Resource.Kind == mesh.KindVirtualNode && now.objects.Get(o.Key()) == nil {
			fresh = append(fresh, o.Resource)
		}
	}
	if len(fresh) == 0 {
		return
	}
	packages := slices.DeleteFunc(slices.Clone(in.policies.PackagesInForce()), func(p policy.Package) bool {
		return !slices.ContainsFunc(fresh, func(n *mesh.Resource) bool { return p.Means(proxy.Node(n.Mesh, n.Name)) })
	})
	for _, p := range policies.Contested(next.graph, packages) {
		before, after := policies.Claims(now.graph, p), policies.Claims(next.graph, p)
		for _, n := range after {
			o := next.objects.Get(kinds.Node(n))
			if slices.Contains(before, n) || !slices.Contains(in.objects, o) {
				continue
			}
			in.bad(o.Doc.FieldError("metadata.name", "the policy in force does not tell it from another: "+policies.ContestedText(p, after)))
		}
	}
}
