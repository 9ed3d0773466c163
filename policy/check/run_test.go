package check_test

import (
	"strings"
	"testing"

	"signet.example/policy"
	"signet.example/policy/check"
	"signet.example/policy/tree"
	"signet.example/test/policytest"
)

const ordersTestRego = `package signet.authz.order_store_test

import data.signet.authz.order_store

test_web_reads if {
	"web may read orders" in order_store.allow with input as {
		"request": {"method": "GET", "segments": ["orders", "1"]},
		"source": {"spiffe_id": "spiffe://prod.example/shop/web"},
	}
}
`

func treeOf(files ...string) tree.Tree {
	return tree.Tree{URL: "file:///repo", Commit: "c0ffee", Modules: append(policytest.Modules(policytest.Mesh, policytest.Orders), policy.Module{Path: "x_test.rego", Rego: strings.Join(files, "\n")})}
}

func TestATreeWithPassingTestsIsServed(t *testing.T) {
	r, err := check.Tree(t.Context(), treeOf(ordersTestRego))
	if err != nil || r.Passed != 1 || r.Failed != 0 || len(r.Warnings) != 0 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestAFailingTestRefusesTheTreeByNameAndLine(t *testing.T) {
	r, err := check.Tree(t.Context(), treeOf(ordersTestRego, "test_impossible if 1 == 2", "test_broken if to_number(\"x\") == 1"))
	if err == nil || r.Passed != 1 || r.Failed != 2 {
		t.Fatalf("%+v %v", r, err)
	}
	if all := strings.Join(r.Failures, "\n"); !strings.Contains(all, "x_test.rego:12: test_impossible: is not true") || !strings.Contains(all, "test_broken") {
		t.Errorf("failures %v", r.Failures)
	}
}

func TestATreeWithoutTestsIsServedWithAWarning(t *testing.T) {
	r, err := check.Tree(t.Context(), tree.Tree{Modules: policytest.Modules(policytest.Mesh)})
	if err != nil || len(r.Warnings) != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestATestFileCannotHoldWhatIsNotServed(t *testing.T) {
	for _, rego := range []string{
		"package signet.authz\nallow contains \"only when tested\"",
		"package signet.authz.order_store\ndeny contains \"only when tested\"",
	} {
		if _, err := check.Tree(t.Context(), treeOf(rego)); err == nil || !strings.Contains(err.Error(), "not served") {
			t.Errorf("%v", err)
		}
	}
	helper := "package signet.lib.roles\nadmin := 1"
	uses := tree.Tree{Modules: append(policytest.Modules("package signet.authz\nallow contains \"x\" if data.signet.lib.roles.admin == input.x"), policy.Module{Path: "lib_test.rego", Rego: helper})}
	if _, err := check.Tree(t.Context(), uses); err != nil {
		t.Logf("refused: %v", err)
	}
}

func TestTestsCannotReachTheNetwork(t *testing.T) {
	if _, err := check.Tree(t.Context(), treeOf("package signet.authz_test\ntest_x if http.send({\"method\": \"GET\", \"url\": \"http://127.0.0.1\"})")); err == nil || !strings.Contains(err.Error(), "builtin http.send is not available") {
		t.Errorf("%v", err)
	}
}
