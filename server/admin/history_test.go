package admin_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/server/admin"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/store"
)

// pastOf answers as it is told.
type pastOf struct {
	past []store.Past
	back []store.Write
	err  error
}

func (p pastOf) History(context.Context, store.Key, uint64, int) ([]store.Past, uint64, error) {
	return p.past, 2, nil
}

func (p pastOf) Back(context.Context, uint64) ([]store.Write, error) { return p.back, p.err }

// rollback goes back to what past has.
func (d *desk) rollback(past pastOf) (*api.ApplyResponse, error) {
	d.t.Helper()
	d.cfg.Past = past
	d.admin = admin.New(d.cfg)
	d.done = nil
	return d.admin.Rollback(d.ctx(), &api.RollbackRequest{Revision: 3})
}

// What is shown of twenty revisions has a bound; what one changed is shown whole.
func TestOneRevisionIsShownWithWhatItChanged(t *testing.T) {
	d := newDesk(t)
	d.cfg.Past = pastOf{past: []store.Past{{
		Change: store.Change{Revision: 3, Kind: "Mesh", Mesh: "shop", Name: "shop", Manifest: []byte("b"), Owner: "now"},
		Before: []byte("a"), OwnerBefore: "then",
	}}}
	s := admin.New(d.cfg)
	for revision, want := range map[uint64][]string{0: {"", "", ""}, 3: {"a", "b", "then"}} {
		answer, err := s.History(d.ctx(), &api.HistoryRequest{Revision: revision})
		if err != nil {
			t.Fatal(err)
		}
		c := answer.GetRevisions()[0].GetChanges()[0]
		if c.GetBefore() != want[0] || c.GetAfter() != want[1] || c.GetOwnerBefore() != want[2] || c.GetOwner() != "now" {
			t.Errorf("revision %d: %v", revision, c)
		}
	}
	d.cfg.Past = pastOf{}
	for revision, says := range map[uint64]string{1: "begins with revision 2", 3: "no revision 3 has changed such resources"} {
		_, err := admin.New(d.cfg).History(d.ctx(), &api.HistoryRequest{Revision: revision})
		if err = fault.ToOperator(err); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), says) {
			t.Errorf("revision %d: %v", revision, err)
		}
	}
}

func TestARollbackIsCheckedAsAnApplyIs(t *testing.T) {
	d := newDesk(t)
	if _, err := d.admin.Apply(d.ctx(), applyOf(shop+nodeTo("/dev/stdout")+groupNamed("front"))); err != nil {
		t.Fatal(err)
	}
	d.agents = []fleet.Status{{Agent: store.Agent{ID: "web-1", Group: "front"}, State: api.AgentInfo_CONNECTED}}
	gone := func(kind, mesh, name string) []store.Write {
		return []store.Write{{Object: store.Object{Kind: kind, Mesh: mesh, Name: name}, Delete: true}}
	}
	for name, c := range map[string]struct {
		past pastOf
		code codes.Code
		says string
	}{
		"a revision that is forgotten": {pastOf{err: store.ErrForgotten}, codes.InvalidArgument, "not known any more"},
		"one that is not there yet":    {pastOf{err: store.ErrNotFound}, codes.NotFound, "there is no revision 3"},
		"a node without its mesh":      {pastOf{back: gone("Mesh", "shop", "shop")}, codes.InvalidArgument, "shop"},
		"a group of a connected agent": {pastOf{back: gone("NodeGroup", "", "front")}, codes.FailedPrecondition, "web-1"},
		"what this version refuses": {
			pastOf{back: []store.Write{{Object: store.Object{Kind: "VirtualNode", Mesh: "shop", Name: "web", Manifest: []byte(nodeTo("/etc/passwd"))}}}},
			codes.InvalidArgument, "/etc/passwd",
		},
	} {
		_, err := d.rollback(c.past)
		if err = fault.ToOperator(err); status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		d.wants("begin", "end")
	}
}

func TestARollbackGivesEachObjectTheOwnerThatItHadThen(t *testing.T) {
	d := newDesk(t)
	if _, err := d.applied(groupNamed("front"), "now"); err != nil {
		t.Fatal(err)
	}
	answer, err := d.rollback(pastOf{back: []store.Write{{Object: store.Object{Kind: "NodeGroup", Name: "front", Owner: "then", Manifest: []byte(groupNamed("front"))}}}})
	if err != nil || len(answer.GetChanges()) != 1 || answer.GetChanges()[0].GetOwner() != "then" || answer.GetChanges()[0].GetOwnerBefore() != "now" {
		t.Errorf("%v, %v", answer.GetChanges(), err)
	}
	// Of whom they are that it changes is said, for all that there are of one together.
	if w := answer.GetWarnings(); len(w) != 1 || w[0] != "of owner now, whose next apply may undo this: NodeGroup front" {
		t.Errorf("%q", w)
	}
	var back []store.Write
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		back = append(back, store.Write{Object: store.Object{Kind: "NodeGroup", Name: name, Owner: "then", Manifest: []byte(groupNamed(name))}})
	}
	if answer, err = d.rollback(pastOf{back: back}); err != nil || len(answer.GetWarnings()) != 1 || !strings.HasSuffix(answer.GetWarnings()[0], "NodeGroup a, NodeGroup b, NodeGroup c and 2 more") {
		t.Errorf("%q, %v", answer.GetWarnings(), err)
	}
}

func TestARollbackIsOneWriteAndADryRunIsNone(t *testing.T) {
	d := newDesk(t)
	if _, err := d.admin.Apply(d.ctx(), applyOf(shop+nodeTo("/dev/stdout")+groupNamed("front"))); err != nil {
		t.Fatal(err)
	}
	past := pastOf{back: []store.Write{
		{Object: store.Object{Kind: "VirtualNode", Mesh: "shop", Name: "web", Manifest: []byte(nodeTo("/dev/stderr"))}},
		{Object: store.Object{Kind: "NodeGroup", Name: "front"}, Delete: true},
		{Object: store.Object{Kind: "NodeGroup", Name: "never"}, Delete: true},
	}}
	answer, err := d.rollback(past)
	if err != nil {
		t.Fatal(err)
	}
	if c := answer.GetChanges(); len(c) != 2 || c[0].GetAction() != api.Change_CONFIGURED || c[1].GetAction() != api.Change_DELETED || !strings.Contains(c[0].GetAfter(), "/dev/stderr") {
		t.Errorf("changes %v", c)
	}
	d.wants("begin", "write uid 7 pid 8: Rollback to revision 3", "end")
	if answer, err = d.rollback(past); err != nil || len(answer.GetChanges()) != 0 {
		t.Errorf("again: %v, %v", answer.GetChanges(), err)
	}
	d.wants("begin", "end")
}

// What was stored before objects said their meshes is of the mesh in whose row it is.
func TestARollbackToWhatSaysNoMeshIsToItsOwnThoughThereAreTwo(t *testing.T) {
	d := newDesk(t)
	for _, manifests := range []string{shop + nodeTo("/dev/stdout"), strings.ReplaceAll(shop, "name: shop", "name: other")} {
		if _, err := d.admin.Apply(d.ctx(), applyOf(manifests)); err != nil {
			t.Fatal(err)
		}
	}
	then := nodeTo("/dev/stderr")
	answer, err := d.rollback(pastOf{back: []store.Write{{Object: store.Object{Kind: "VirtualNode", Mesh: "shop", Name: "web", Manifest: []byte(then)}}}})
	if err != nil || len(answer.GetChanges()) != 1 || !strings.Contains(answer.GetChanges()[0].GetAfter(), "meshRef:\n    name: shop") {
		t.Errorf("%v, %v", answer.GetChanges(), err)
	}
	_, err = d.rollback(pastOf{back: []store.Write{{Object: store.Object{Kind: "VirtualNode", Mesh: "gone", Name: "web", Manifest: []byte(then)}}}})
	if err == nil || !strings.Contains(err.Error(), `belongs to mesh "gone", which does not exist`) {
		t.Error(err)
	}
}

func TestARollbackSaysWhoseLaterChangesItUndoes(t *testing.T) {
	d := newDesk(t)
	if _, err := d.admin.Apply(d.ctx(), applyOf(groupNamed("a")+groupNamed("b"))); err != nil {
		t.Fatal(err)
	}
	change := func(n uint64, name string) store.Past {
		return store.Past{Change: store.Change{Revision: n, At: noon, Kind: "NodeGroup", Name: name}, Actor: fmt.Sprintf("uid %d", n)}
	}
	gone := []store.Write{{Object: store.Object{Kind: "NodeGroup", Name: "a"}, Delete: true}, {Object: store.Object{Kind: "NodeGroup", Name: "b"}, Delete: true}}
	var many []store.Past
	for n := uint64(30); n > 3; n-- {
		many = append(many, change(n, "a"))
	}
	for name, c := range map[string]struct {
		past []store.Past
		want []string
	}{
		"the last one": {[]store.Past{change(4, "a"), change(4, "b"), change(3, "a")}, nil},
		"two": {[]store.Past{change(6, "a"), change(6, "b"), change(5, "elsewhere"), change(4, "a"), change(3, "a")}, []string{
			"undoes revision 6, by uid 6 at 2026-11-21T12:00:00Z: NodeGroup a, NodeGroup b", "undoes revision 4, by uid 4 at 2026-11-21T12:00:00Z: NodeGroup a",
		}},
		"many": {many, nil},
	} {
		d.cfg.Past = pastOf{back: gone, past: c.past}
		answer, err := admin.New(d.cfg).Rollback(d.ctx(), &api.RollbackRequest{Revision: 3, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		switch got := answer.GetWarnings(); {
		case name != "many" && !slices.Equal(got, c.want):
			t.Errorf("%s: %q, want %q", name, got, c.want)
		case name == "many" && (len(got) != 21 || got[20] != "and others after revision 3: `signet history` has them"):
			t.Errorf("%s: %q", name, got)
		}
	}
}
