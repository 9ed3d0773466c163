package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/policy"
	"signet.example/proxy"
	"signet.example/test/policytest"
)

// opens is a package of a node with one allow rule, named after the package.
func opens(pkg string) string {
	return fmt.Sprintf("%s\n\nallow contains %q if input.request.method == \"DELETE\"", pkg, pkg)
}

func destination(mesh, node string) policy.Input {
	in := call("DELETE", "/", web)
	in.Destination.ID = spiffeid.RequireFromString("spiffe://prod.example/" + mesh + "/" + node)
	return in
}

func TestARuleForOneNodeOpensNoOther(t *testing.T) {
	nodes := [][2]string{{"shop", "orders_v2"}, {"shop", "orders-v2"}, {"shop", "orders.v2"}, {"shop", "orders"}, {"bank", "orders_v2"}, {"bank", "orders"}, {"orders", "v2"}, {"shop", "v2"}}
	for _, n := range nodes {
		pkg := policy.PackageName(n[0] + "/" + n[1])
		c := compile(t, opens(pkg))
		for _, other := range nodes {
			d, err := c.Evaluate(t.Context(), destination(other[0], other[1]))
			if err != nil || d.Allowed != (n == other) {
				t.Errorf("%s, asked for %s: allowed %v, error %v", pkg, other, d.Allowed, err)
			}
		}
	}
}

func TestAShortPackageThatSeveralNodesClaimAllowsToNoneAndDeniesToEach(t *testing.T) {
	const rego = `package signet.authz.orders_v2

allow contains "the sandbox may be emptied" if input.request.method == "DELETE"

deny contains "nobody reaches admin" if input.request.segments[0] == "admin"

headers["x-user"] := "a"
`
	mesh := "package signet.authz\n\nallow contains \"read\" if input.request.method == \"GET\""
	alone, err := policy.Compile(policy.NewRevision("", "", policytest.Modules(rego, mesh), policy.Generated{}))
	if err != nil {
		t.Fatal(err)
	}
	contested, err := policy.Compile(policy.NewRevision("", "", policytest.Modules(rego, mesh), policy.Generated{Contested: []string{"orders_v2"}}))
	if err != nil {
		t.Fatal(err)
	}
	if alone.Revision().ID == contested.Revision().ID {
		t.Error("what is contested is not in the revision's id")
	}
	for _, node := range []string{"orders_v2", "orders-v2"} {
		in := destination("shop", node)
		if d, err := alone.Evaluate(t.Context(), in); err != nil || !d.Allowed {
			t.Errorf("%s: the only node that the package can mean: %+v %v", node, d, err)
		}
		d, err := contested.Evaluate(t.Context(), in)
		if err != nil || d.Allowed || !strings.Contains(d.Untraced, "package signet.authz.orders_v2 may mean several virtual nodes") {
			t.Errorf("%s: %+v %v", node, d, err)
		}
		in.Request.Method = "GET"
		if d, err := contested.Evaluate(t.Context(), in); err != nil || !d.Allowed || len(d.Headers) > 0 || len(d.Unset) != 1 {
			t.Errorf("%s: what the mesh allows: %+v %v", node, d, err)
		}
		in.Request.Segments = []string{"admin"}
		if d, err := contested.Evaluate(t.Context(), in); err != nil || d.Allowed || names(d.Deny) != "nobody reaches admin" {
			t.Errorf("%s: what the package denies: %+v %v", node, d, err)
		}
	}
}

func TestEveryPackageOfANodeIsAsked(t *testing.T) {
	all := []string{`package signet.authz.orders_v2`, `package signet.authz["orders-v2"]`, `package signet.authz.shop["orders-v2"]`}
	for picked := range 1 << len(all) {
		var files []string
		for i, pkg := range all {
			if picked>>i&1 == 1 {
				files = append(files, opens(pkg))
			}
		}
		d, err := compile(t, files...).Evaluate(t.Context(), destination("shop", "orders-v2"))
		if err != nil || len(d.Allow) != len(files) {
			t.Errorf("%d packages, %d rules: %v", len(files), len(d.Allow), err)
		}
	}
}

func TestPackagesAreListedByFileAndLine(t *testing.T) {
	list, err := policy.Packages(append(policytest.Modules(policytest.Mesh, "# rules\n"+opens("package signet.authz.crt_v1"), opens(`package signet.authz.shop["orders-v2"]`)),
		policy.Module{Path: "x_test.rego", Rego: "package signet.authz.x_test\ntest_x if true"}))
	if err != nil || len(list) != 2 {
		t.Fatalf("%v %v", list, err)
	}
	if p := list[0]; p.String() != "package signet.authz.crt_v1" || p.File != "policies/b.rego" || p.Line != 2 || !p.Means(proxy.Node("any", "crt-v1")) || !p.Means(proxy.Node("any", "crt_v1")) || p.Means(proxy.Node("any", "cart_v1")) {
		t.Errorf("%+v", p)
	}
	if p := list[1]; p.String() != `package signet.authz.shop["orders-v2"]` || !p.Means(proxy.Node("shop", "orders-v2")) || p.Means(proxy.Node("shop", "orders_v2")) || p.Means(proxy.Node("bank", "orders-v2")) {
		t.Errorf("%+v", p)
	}
}

// A node that was renamed has lost its rules, and its denials would name the mesh's alone.
func TestADenialSaysWhereNoPackageIsForItsNode(t *testing.T) {
	read := "package signet.authz\n\nallow contains \"read\" if input.request.method == \"GET\""
	const absent = "the policy has packages of virtual nodes and none of shop/orders-v3"
	for what, c := range map[string]struct {
		node  string
		files []string
		want  string
	}{
		"renamed":                         {"orders-v3", []string{read, opens("package signet.authz.orders_v2")}, absent},
		"renamed, no rule of the mesh":    {"orders-v3", []string{opens("package signet.authz.orders_v2")}, absent},
		"no node has a package":           {"orders-v3", []string{read}, ""},
		"the node has one, and it denies": {"orders-v2", []string{"package signet.authz.orders_v2\n\nallow contains \"read\" if input.request.method == \"GET\""}, ""},
	} {
		if d, err := compile(t, c.files...).Evaluate(t.Context(), destination("shop", c.node)); err != nil || d.Allowed || d.Untraced != c.want {
			t.Errorf("%s: %+v %v", what, d, err)
		}
	}
}
