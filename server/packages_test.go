package server_test

import (
	"strings"
	"testing"

	"signet.example/api"
)

func node(mesh, name, namespace string) string {
	meta := "{name: " + name + "}"
	if namespace != "" {
		meta = "{name: " + name + ", namespace: " + namespace + "}"
	}
	return "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: " + meta +
		"\nspec:\n  meshRef: {name: " + mesh + "}\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n"
}

const bank = "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: bank}\nspec: {}\n"

const sandbox = "package signet.authz.orders_eu_prod\n\nallow contains \"the sandbox may be emptied\" if input.request.method == \"DELETE\"\n"

func findings(t *testing.T, r *rig, id string) []*api.Finding {
	t.Helper()
	resp, err := r.admin.Check(t.Context(), &api.CheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var list []*api.Finding
	for _, f := range resp.GetFindings() {
		if f.GetId() == id {
			list = append(list, f)
		}
	}
	return list
}

func TestAPackageThatMayMeanTwoNodesIsRefusedBySync(t *testing.T) {
	for name, tc := range map[string]struct{ nodes, rego, want string }{
		"by '-' and '_'": {
			node("shop", "orders", "eu-prod") + node("shop", "orders-eu", "prod"), sandbox,
			`main.rego:1: package signet.authz.orders_eu_prod may mean the virtual nodes shop/orders-eu_prod and shop/orders_eu-prod: write package signet.authz.shop["orders-eu_prod"] or package signet.authz.shop["orders_eu-prod"]`,
		},
		"in two meshes": {
			bank + node("bank", "orders", ""), "package signet.authz.orders\n\nallow contains \"x\"\n",
			`main.rego:1: package signet.authz.orders may mean the virtual nodes bank/orders and shop/orders: write package signet.authz.bank.orders or package signet.authz.shop.orders`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.apply(registry + shop)
			r.apply(tc.nodes)
			p := newRepo(t)
			p.commit(map[string]string{"main.rego": tc.rego, "main_test.rego": passes})
			r.apply(p.source())
			if st := r.sync(); !strings.Contains(st.GetError(), tc.want) || st.GetRevision() != "" {
				t.Errorf("status %v", st)
			}
			awaitFinding(t, r, "SIG005", tc.want)
			full := strings.SplitN(tc.want, "write ", 2)[1]
			full, _, _ = strings.Cut(full, " or ")
			p.commit(map[string]string{"main.rego": full + "\n\nallow contains \"x\" if input.request.method == \"GET\"\n"})
			if st := r.sync(); st.GetError() != "" || len(st.GetWarnings()) > 0 {
				t.Errorf("named in full: status %v", st)
			}
		})
	}
}

func TestANodeWhosePackageIsTakenIsRefusedByApply(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop + node("shop", "orders", "eu-prod"))
	p := newRepo(t)
	p.commit(map[string]string{"main.rego": sandbox, "main_test.rego": passes})
	r.apply(p.source())
	if st := r.sync(); st.GetError() != "" || len(st.GetWarnings()) > 0 {
		t.Fatalf("status %v", st)
	}
	_, err := r.tryApply(node("shop", "orders-eu", "prod"))
	if err == nil || !strings.Contains(err.Error(), "metadata.name") || !strings.Contains(err.Error(), "package signet.authz.orders_eu_prod may mean the virtual nodes") {
		t.Fatalf("the second node: %v", err)
	}
	r.apply(node("shop", "orders", "eu-prod")) // the first one stays what it is
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "virtualnode", Mesh: "shop", Name: "orders_eu-prod"}); err != nil {
		t.Fatal(err)
	}
	r.apply(node("shop", "orders-eu", "prod"))
	if list := findings(t, r, "SIG030"); len(list) > 0 {
		t.Errorf("findings %v", list)
	}
}

func TestAPackageOfNoNodeIsWarnedOfBySyncAndCheck(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop + node("shop", "carts", "eu"))
	p := newRepo(t)
	p.commit(map[string]string{
		"oders.rego": "package signet.authz.oders\n\ndeny contains \"nobody deletes\" if input.request.method == \"DELETE\"\n",
		"carts.rego": "package signet.authz.carts\n\ndeny contains \"x\"\n",
		"full.rego":  "package signet.authz.shp.orders\n\ndeny contains \"x\"\n",
		"later.rego": "package signet.authz.later\n\ndeny contains \"x\"\n",
	})
	r.apply(p.source())
	st := r.sync()
	if st.GetError() != "" || st.GetModules() != 4 {
		t.Fatalf("status %v", st)
	}
	for _, want := range []string{
		"oders.rego:1: package signet.authz.oders is of no virtual node, so nobody is asked for its rules; did you mean package signet.authz.orders?",
		"carts.rego:1: package signet.authz.carts is of no virtual node, so nobody is asked for its rules; did you mean package signet.authz.carts_eu?",
		"full.rego:1: package signet.authz.shp.orders is of no virtual node, so nobody is asked for its rules; did you mean package signet.authz.shop.orders?",
		"later.rego:1: package signet.authz.later is of no virtual node, so nobody is asked for its rules",
		"the repository has no policy tests",
	} {
		if !strings.Contains(strings.Join(st.GetWarnings(), "\n"), want) {
			t.Errorf("sync does not warn %q: %q", want, st.GetWarnings())
		}
		awaitFinding(t, r, "SIG031", want)
	}
	r.apply(node("shop", "later", ""))
	for _, f := range findings(t, r, "SIG031") {
		if !strings.HasSuffix(f.GetFix(), "`signet policy sync`, which says what is left") {
			t.Errorf("a check of the files alone knows no mesh, and the fix is %q", f.GetFix())
		}
		if strings.Contains(f.GetCause(), "later") {
			t.Errorf("it is of a node now: %v", f)
		}
	}
}

func TestAPolicyThatReadsWhatTheInputNeverHasIsRefusedBySync(t *testing.T) {
	r := newRig(t)
	p := newRepo(t)
	r.apply(p.source())
	for name, tc := range map[string]struct{ rego, want string }{
		"a body":     {"package envoy.authz\n\ndefault allow := true\n\nallow := false if input.parsed_body.action == \"delete\"\n", "main.rego:5: input.parsed_body: the input never has this"},
		"a slip":     {"package signet.authz\n\ndeny contains \"x\" if input.request.segmnts[0] == \"admin\"\n", "main.rego:3: input.request.segmnts: the input never has this: did you mean segments?"},
		"a bad rule": {"package signet.authz\n\ndenny contains \"x\"\n", "main.rego:3: rule denny: nobody reads it; did you mean deny?"},
	} {
		t.Run(name, func(t *testing.T) {
			p.commit(map[string]string{"main.rego": tc.rego})
			if st := r.sync(); !strings.Contains(st.GetError(), tc.want) || st.GetRevision() != "" {
				t.Errorf("status %v", st)
			}
		})
	}
}
