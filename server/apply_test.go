package server_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
)

func TestApplyStoresAllOrNothingAndNamesEveryMistake(t *testing.T) {
	r := newRig(t)
	_, err := r.admin.Apply(t.Context(), &api.ApplyRequest{Sources: []*api.Source{
		{File: "good.yaml", Content: []byte(registry)},
		{File: "typo.yaml", Content: []byte("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: x}\nspec: {selector: []}\n")},
		{File: "foreign.yaml", Content: []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {}\n")},
		{File: "field.yaml", Content: []byte("apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: e}\nspec: {group: front, spiffeID: \"spiffe://other/x\", selectors: [\"unix:uid:1\"]}\n")},
	}})
	wantCode(t, err, codes.InvalidArgument, "typo.yaml:4", "foreign.yaml:1", "apps/v1", "--skip-foreign", "field.yaml:4", "spec.spiffeID")
	resp, err := r.admin.Get(t.Context(), &api.GetRequest{})
	if err != nil || len(resp.GetObjects()) != 0 {
		t.Errorf("stored %d objects, %v", len(resp.GetObjects()), err)
	}
}

func TestApplyChecksReferencesAgainstWhatIsStored(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	entry := "apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: b}\nspec: {group: %s, mesh: shop, virtualNode: %s, selectors: [\"unix:uid:1\"]}\n"
	_, err := r.tryApply(strings.Replace(strings.Replace(entry, "%s", "nowhere", 1), "%s", "web", 1))
	wantCode(t, err, codes.InvalidArgument, "NodeGroup nowhere", "Binding b")
	_, err = r.tryApply(strings.Replace(strings.Replace(entry, "%s", "front", 1), "%s", "nothing", 1))
	wantCode(t, err, codes.InvalidArgument, "VirtualNode shop/nothing")
	r.apply(strings.Replace(strings.Replace(entry, "%s", "front", 1), "%s", "web", 1))
}

func TestSkippedForeignKindsAreCounted(t *testing.T) {
	r := newRig(t)
	resp, err := r.admin.Apply(t.Context(), &api.ApplyRequest{SkipForeign: true, Sources: []*api.Source{
		{File: "a.yaml", Content: []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n---" + registry)},
	}})
	if err != nil || resp.GetSkippedForeign() != 1 || len(resp.GetChanges()) != 4 {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestADryRunTellsTheChangesAndStoresNothing(t *testing.T) {
	r := newRig(t)
	resp, err := r.admin.Apply(t.Context(), &api.ApplyRequest{DryRun: true, Sources: []*api.Source{{File: "a.yaml", Content: []byte(registry)}}})
	if err != nil || len(resp.GetChanges()) != 4 || resp.GetChanges()[0].GetAction() != api.Change_CREATED {
		t.Errorf("%v, %v", resp, err)
	}
	got, err := r.admin.Get(t.Context(), &api.GetRequest{})
	if err != nil || len(got.GetObjects()) != 0 {
		t.Errorf("stored %d objects, %v", len(got.GetObjects()), err)
	}
}

func TestWhatGetReadsBackAppliesUnchanged(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	got, err := r.admin.Get(t.Context(), &api.GetRequest{Kind: "all"})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, o := range got.GetObjects() {
		all = append(all, o.GetYaml())
	}
	resp := r.apply(strings.Join(all, "\n---\n"))
	for _, c := range resp.GetChanges() {
		if c.GetAction() != api.Change_UNCHANGED {
			t.Errorf("%s %s: %s\n%s\n---\n%s", c.GetKind(), c.GetName(), c.GetAction(), c.GetBefore(), c.GetAfter())
		}
	}
	if len(resp.GetChanges()) != 10 {
		t.Errorf("%d changes", len(resp.GetChanges()))
	}
}

func TestKindsHaveShortNames(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	for kind, want := range map[string]int{"vn": 2, "VirtualNode": 2, "virtualnodes": 2, "vs": 1, "meshes": 1, "mesh": 1, "entries": 2, "bindings": 2, "ng": 2} {
		got, err := r.admin.Get(t.Context(), &api.GetRequest{Kind: kind})
		if err != nil || len(got.GetObjects()) != want {
			t.Errorf("%s: %d objects, %v", kind, len(got.GetObjects()), err)
		}
	}
	_, err := r.admin.Get(t.Context(), &api.GetRequest{Kind: "pod"})
	wantCode(t, err, codes.InvalidArgument, "VirtualNode")
	_, err = r.admin.Get(t.Context(), &api.GetRequest{Kind: "vn", Name: "nothing"})
	wantCode(t, err, codes.NotFound)
}

func TestDeleteIsRefusedWhileSomethingRefersToTheObject(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	del := func(kind, name string) error {
		_, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: kind, Name: name})
		return err
	}
	wantCode(t, del("vn", "orders"), codes.FailedPrecondition, "orders")
	wantCode(t, del("nodegroup", "front"), codes.FailedPrecondition, "Entry job")
	wantCode(t, del("mesh", "shop"), codes.FailedPrecondition)
	wantCode(t, del("vn", "nothing"), codes.NotFound)
	for _, o := range [][2]string{{"binding", "web"}, {"binding", "orders"}, {"vn", "web"}, {"vs", "orders"}, {"vn", "orders"}, {"mesh", "shop"}} {
		if err := del(o[0], o[1]); err != nil {
			t.Errorf("delete %s: %v", o, err)
		}
	}
}

func TestPlaintextDoesNotBecomeStrictInOneStep(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	node := func(mode string) string {
		return "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: orders}\nspec:\n  listeners:\n    - portMapping: {port: 8080, protocol: http}\n" +
			"      tls: {mode: " + mode + ", certificate: {sds: {secretName: \"spiffe://test.example/shop/orders\"}}}\n  serviceDiscovery: {dns: {hostname: orders.internal}}\n"
	}
	r.apply(node("DISABLED"))
	_, err := r.tryApply(node("STRICT"))
	wantCode(t, err, codes.InvalidArgument, "PERMISSIVE", "test.yaml")
	r.apply(node("PERMISSIVE"))
	r.apply(node("STRICT"))
}

func TestTheAdminSocketIsOfItsOwnerAlone(t *testing.T) {
	r := newRig(t)
	fi, err := os.Stat(r.addr.Admin)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestAnObjectOfAnotherNamespaceIsNotTakenOver(t *testing.T) {
	team := func(namespace string) string {
		return strings.ReplaceAll(`
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: catalog, namespace: TEAM}
spec: {awsName: catalog, listeners: [{portMapping: {port: 8080, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: catalog, namespace: TEAM}
spec:
  awsName: catalog
  listeners: [{portMapping: {port: 8080, protocol: http}}]
  routes: [{name: all, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: catalog}, weight: 1}]}}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: catalog, namespace: TEAM}
spec: {awsName: catalog.shop.internal, provider: {virtualRouter: {virtualRouterRef: {name: catalog}}}}
`, "TEAM", namespace)
	}
	r := newRig(t)
	r.apply(registry + shop + team("team-a"))
	for _, other := range []string{team("team-b"), strings.ReplaceAll(team("team-b"), ", namespace: team-b", "")} {
		_, err := r.tryApply(other)
		wantCode(t, err, codes.InvalidArgument, "virtualService catalog", "virtualRouter catalog", "virtualNode catalog", "in namespace team-a", "delete that one first")
	}
	_, err := r.tryApply("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: other}\nspec: {awsName: shop}")
	wantCode(t, err, codes.InvalidArgument, "mesh other", "of mesh shop", "delete that one first")
	resp := r.apply(team("team-a"))
	for _, c := range resp.GetChanges() {
		if c.GetAction() != api.Change_UNCHANGED {
			t.Errorf("%s %s was %s", c.GetKind(), c.GetName(), c.GetAction())
		}
	}
	// Whoever deletes it first may have the name.
	for _, kind := range []string{"vs", "vr", "vn"} {
		name := map[string]string{"vs": "catalog.shop.internal"}[kind]
		if name == "" {
			name = "catalog"
		}
		if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: kind, Name: name}); err != nil {
			t.Fatalf("delete %s: %v", kind, err)
		}
	}
	r.apply(team("team-b"))
}

func TestWhatKubernetesTakesAndIgnoresIsAWarning(t *testing.T) {
	r := newRig(t)
	resp := r.apply(registry + strings.Replace(shop, "{name: shop}", "{name: shop, namespace: shop}", 1) +
		"---\napiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: g, namespace: shop, labels: {a: b}, uid: x}\nspec: {}\n")
	for _, field := range []string{"metadata.namespace: has no effect: a mesh", "metadata.namespace: has no effect: an object of", "metadata.labels: has no effect", "metadata.uid: has no effect"} {
		if !strings.Contains(strings.Join(resp.GetWarnings(), "\n"), field) {
			t.Errorf("no warning %q in %q", field, resp.GetWarnings())
		}
	}
}

func TestAMeshThatLetsThroughWhatIsUnsafeIsWarnedOfAndFound(t *testing.T) {
	annotated := func(names string) string {
		return strings.Replace(shop, "metadata: {name: shop}", `metadata: {name: shop, annotations: {"signet.example/unsafe": "`+names+`"}}`, 1)
	}
	r := newRig(t)
	_, err := r.tryApply(registry + annotated("method-headers, everything"))
	wantCode(t, err, codes.InvalidArgument, "metadata.annotations[", `"everything" is not known`)
	resp := r.apply(registry + annotated("query-semicolons, method-headers"))
	if w := strings.Join(resp.GetWarnings(), "\n"); !strings.Contains(w, "unsafe: method-headers") || !strings.Contains(w, "unsafe: query-semicolons") {
		t.Errorf("warnings: %q", w)
	}
	awaitFinding(t, r, "SIG033", "method-headers, query-semicolons")
	r.apply(shop)
	check, err := r.admin.Check(t.Context(), &api.CheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range check.GetFindings() {
		if f.GetId() == "SIG033" {
			t.Errorf("found when it is gone: %v", f)
		}
	}
}

func TestDeletingThePolicySourceWarns(t *testing.T) {
	r := newRig(t)
	p := newRepo(t)
	p.commit(map[string]string{"a.rego": allowAll, "a_test.rego": passes})
	r.apply(registry + shop + "---\n" + p.source())
	r.deleteWarns("main", true)
}

func (r *rig) deleteWarns(source string, want bool) {
	r.t.Helper()
	for _, dry := range []bool{true, false} {
		resp, err := r.admin.Delete(r.t.Context(), &api.DeleteRequest{Kind: "PolicySource", Name: source, DryRun: dry})
		if err != nil {
			r.t.Fatal(err)
		}
		if warned := strings.Contains(strings.Join(resp.GetWarnings(), "\n"), "every call between services is denied"); warned != want {
			r.t.Errorf("delete %s, dry run %t: %q", source, dry, resp.GetWarnings())
		}
	}
}

// TestWhatWasAddedIsWhatIsWrong: of two that cannot be together the one in the file is
// told, wherever their names stand.
func TestWhatWasAddedIsWhatIsWrong(t *testing.T) {
	r := newRig(t)
	source := func(name string) string {
		return "apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: " + name + "}\nspec: {url: \"file:///nowhere\", branch: main, poll: 1h}\n"
	}
	r.apply(source("middle"))
	for _, name := range []string{"a-first", "the-last"} {
		_, err := r.tryApply(source(name))
		wantCode(t, err, codes.InvalidArgument, "test.yaml:3:", "PolicySource middle is there already")
	}
}

// TestAnIssuerWhoseKeysCannotBeFetchedIsWarnedOf and applied: it may come up later.
func TestAnIssuerWhoseKeysCannotBeFetchedIsWarnedOf(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	begun := time.Now()
	for url, why := range map[string]string{"http://127.0.0.1:1/keys": "connection refused", "http://" + silent.Addr().String() + "/keys": "deadline"} {
		resp := r.apply(issuer(url))
		if text := strings.Join(resp.GetWarnings(), "\n"); len(resp.GetChanges()) != 1 || !strings.Contains(text, "JWTIssuer users: its keys cannot be fetched now") || !strings.Contains(text, why) {
			t.Errorf("%s: %v, warnings %s", url, resp.GetChanges(), text)
		}
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, jwksFormat, "one") }))
	t.Cleanup(good.Close)
	for _, text := range r.apply(issuer(good.URL)).GetWarnings() {
		if strings.Contains(text, "cannot be fetched") {
			t.Errorf("keys that are there: %s", text)
		}
	}
}

func TestWhatIsAskedForAndNotThereIsTold(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	for _, kind := range []string{"all", "VirtualNode"} {
		if _, err := r.admin.Get(t.Context(), &api.GetRequest{Kind: kind, Mesh: "nope"}); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `mesh "nope" does not exist; there are shop`) {
			t.Errorf("%s of a mesh: %v", kind, err)
		}
	}
	if got, err := r.admin.Get(t.Context(), &api.GetRequest{Kind: "VirtualRouter", Mesh: "shop"}); err != nil || len(got.GetObjects()) > 0 {
		t.Errorf("of a mesh without any: %v, %v", got, err)
	}
	_, err := r.admin.Explain(t.Context(), &api.ExplainRequest{Id: strings.Repeat("ab", 16)})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "and lose them when they end") {
		t.Errorf("a decision: %v", err)
	}
}
