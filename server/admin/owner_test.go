package admin_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/store"
)

// applied is what an apply did, as lines.
func (d *desk) applied(manifests, owner string, more ...func(*api.ApplyRequest)) (string, error) {
	d.t.Helper()
	req := applyOf(manifests)
	req.Owner = owner
	for _, f := range more {
		f(req)
	}
	resp, err := d.admin.Apply(d.ctx(), req)
	var lines []string
	for _, c := range resp.GetChanges() {
		lines = append(lines, fmt.Sprintf("%s %s %q %q", c.GetName(), strings.ToLower(c.GetAction().String()), c.GetOwnerBefore(), c.GetOwner()))
	}
	slices.Sort(lines)
	return strings.Join(lines, "; "), fault.ToOperator(err)
}

func prune(r *api.ApplyRequest)    { r.Prune = true }
func takeOver(r *api.ApplyRequest) { r.TakeOver = true }

func TestAnApplyPrunesWhatIsItsOwnersAndNobodyElses(t *testing.T) {
	d := newDesk(t)
	for _, step := range []struct {
		manifests, owner string
		more             func(*api.ApplyRequest)
		want             string
	}{
		{groupNamed("nobodys"), "", nil, `nobodys created "" ""`},
		{groupNamed("a1") + groupNamed("a2") + shop, "a", nil, `a1 created "" "a"; a2 created "" "a"; shop created "" "a"`},
		{groupNamed("b1"), "b", nil, `b1 created "" "b"`},
		{groupNamed("a1") + shop, "a", func(r *api.ApplyRequest) { r.Prune, r.DryRun = true, true }, `a1 unchanged "a" "a"; a2 deleted "a" ""; shop unchanged "a" "a"`},
		{groupNamed("a1") + shop, "a", prune, `a1 unchanged "a" "a"; a2 deleted "a" ""; shop unchanged "a" "a"`},
		{groupNamed("a1") + shop, "a", prune, `a1 unchanged "a" "a"; shop unchanged "a" "a"`},
		{groupNamed("nobodys"), "b", nil, `nobodys configured "" "b"`}, // what is nobody's is taken
		{groupNamed("a1"), "", nil, `a1 unchanged "a" "a"`},            // who names no owner changes none
		{groupNamed("a1"), "b", takeOver, `a1 configured "a" "b"`},
		{groupNamed("b1"), "b", prune, `a1 deleted "b" ""; b1 unchanged "b" "b"; nobodys deleted "b" ""`},
	} {
		if step.more == nil {
			step.more = func(*api.ApplyRequest) {}
		}
		if got, err := d.applied(step.manifests, step.owner, step.more); err != nil || got != step.want {
			t.Errorf("%s: %s, %v, want %s", step.owner, got, err, step.want)
		}
	}
}

func TestAnApplyThatWouldTakeOrDeleteWhatIsAnothersIsRefused(t *testing.T) {
	d := newDesk(t)
	for owner, manifests := range map[string]string{"a": shop + groupNamed("front") + groupNamed("hosts"), "b": nodeTo("/dev/stdout")} {
		if owner == "b" {
			continue
		}
		if _, err := d.applied(manifests, owner); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.applied(nodeTo("/dev/stdout"), "b"); err != nil {
		t.Fatal(err)
	}
	d.agents = []fleet.Status{{Agent: store.Agent{ID: "web-1", Group: "hosts"}, State: api.AgentInfo_CONNECTED}}
	for _, row := range []struct {
		manifests, owner string
		more             func(*api.ApplyRequest)
		code             codes.Code
		says             string
	}{
		{groupNamed("front"), "b", prune, codes.InvalidArgument, "NodeGroup front is of owner a: apply with --take-over makes it b's"},
		{groupNamed("front") + groupNamed("hosts"), "a", prune, codes.FailedPrecondition, "Mesh shop is not deleted: VirtualNode shop/web is in it"},
		{groupNamed("front") + shop, "a", prune, codes.FailedPrecondition, "agent web-1 of it is connected"},
		{"", "a", prune, codes.InvalidArgument, "that would delete all of owner a"},
		{groupNamed("front"), "", prune, codes.InvalidArgument, "needs an owner"},
		{groupNamed("front"), "", takeOver, codes.InvalidArgument, "needs an owner"},
		{groupNamed("front"), "a b", func(*api.ApplyRequest) {}, codes.InvalidArgument, "must be up to 128"},
		{shop + "---\nkind: [", "a", prune, codes.InvalidArgument, "a.yaml"}, // what cannot be read is not gone
	} {
		before := d.revision
		got, err := d.applied(row.manifests, row.owner, row.more)
		if status.Code(err) != row.code || !strings.Contains(err.Error(), row.says) || d.revision != before {
			t.Errorf("%s, %v, want %s", got, err, row.says)
		}
	}
	for manifest, want := range map[string]string{
		groupNamed("front"): "", // as it is: there is nothing to undo
		strings.Replace(groupNamed("front"), "spec: {}", "spec: {addresses: [10.0.0.0/16]}", 1): "of owner a, whose next apply may undo this: NodeGroup front",
	} {
		req := applyOf(manifest)
		req.DryRun = true
		if resp, err := d.admin.Apply(d.ctx(), req); err != nil || strings.Join(resp.GetWarnings(), "\n") != want {
			t.Errorf("%q, %v, want %q", resp.GetWarnings(), err, want)
		}
	}
}
