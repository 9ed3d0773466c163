package e2e

import (
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// declaredRouter leads reading of orders to one node, and all else to another.
const declaredRouter = `apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: shop}
spec:
  meshRef: {name: test}
  listeners: [{portMapping: {port: 8080, protocol: http}}]
  routes:
    - {name: read, httpRoute: {match: {prefix: /orders, method: GET}, action: {weightedTargets: [{virtualNodeRef: {name: orders}, weight: 1}]}}}
    - {name: rest, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: shop}, weight: 1}]}}}
`

// declaredNodes take HTTP; the store takes connections.
var declaredNodes = []string{"web", "shop", "orders", "batch"}

// mayCall is what the mesh of the test declares.
func mayCall(caller, callee, method, path string) bool {
	switch caller + " " + callee {
	case "web orders":
		return method == http.MethodGet && strings.HasPrefix(path, "/orders")
	case "web shop", "orders batch":
		return true
	}
	return false
}

// TestAnObservedMeshIsEnforcedByWhatItDeclares goes the way of the first day: nothing is denied
// and what would be is listed; a policy is written of the mesh, and of what was seen; then it is
// enforced, and of all pairs exactly those that are declared answer, also where every node has
// every other one as a backend by then.
func TestAnObservedMeshIsEnforcedByWhatItDeclares(t *testing.T) {
	services := []string{declaredRouter, meshtest.ServiceOfRouter("routed", "shop"), storeNode(""), meshtest.ServiceOfNode("store", "store")}
	var all []string
	for _, n := range declaredNodes {
		services, all = append(services, meshtest.ServiceOfNode(n, n)), append(all, n)
	}
	backends := map[string][]string{"web": {"routed", "store"}, "orders": {"batch"}}
	nodesWith := func(of func(node string) []string) (list []string) {
		for _, n := range declaredNodes {
			list = append(list, meshtest.VirtualNode(n, "", of(n)...))
		}
		return list
	}
	manifests := append([]string{meshtest.Mesh(), optionsManifest("MeshOptions", "test", "observe")}, services...)
	manifests = append(manifests, nodesWith(func(n string) []string { return backends[n] })...)
	w := meshtest.Start(t, meshtest.Options{
		Nodes: append([]string{"store"}, declaredNodes...), Manifests: meshtest.Join(manifests...),
		Policy: map[string]string{"nothing.rego": "package signet.authz\n\nallow contains \"nothing yet\" if false\n"},
	})
	startSpeaker(t, w.Nodes["store"].App)
	call := func(caller, service, method, path string) int {
		t.Helper()
		a, err := meshtest.Do(t, w.Client(caller), method, "http://"+meshtest.HostOf(service)+path)
		if err != nil {
			t.Fatalf("%s calls %s: %v", caller, service, err)
		}
		return a.Status
	}

	// Observed: what is declared answers, and is listed as what the policy denies.
	w.AwaitRoute("web", "http://"+meshtest.HostOf("routed")+"/orders")
	w.AwaitRoute("orders", "http://"+meshtest.HostOf("batch")+"/")
	for _, c := range [][4]string{{"web", "routed", "GET", "/orders/17"}, {"web", "routed", "POST", "/cart"}, {"orders", "batch", "PUT", "/jobs/3f2b8c1e-0000-4000-8000-1234567890ab"}} {
		if status := call(c[0], c[1], c[2], c[3]); status != http.StatusOK {
			t.Errorf("%v is answered %d while the mesh is observed", c, status)
		}
		eventually(t, 2*time.Second, fmt.Sprintf("%v is listed", c), func() bool {
			for _, d := range decisionsOf(t, w, "--denied", "--from", "test/"+c[0]) {
				if d.Observed && d.Method == c[2] && d.Path == c[3] {
					return true
				}
			}
			return false
		})
	}
	w.Await("web speaks to the store", 30*time.Second, func() error { return hungUp(speak(wayTo(t, w, "web"))) })

	// Policies to begin with, of both kinds; sync takes them.
	dir := t.TempDir()
	out, code := w.CLI("policy", "init", dir, "--from-traffic", "--mesh", "test")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	for file, want := range map[string]string{
		"orders": `"test/web may GET /orders/*"`, "shop": `"test/web may POST /cart"`,
		"batch": `"test/orders may PUT /jobs/*"`, "store": `"test/web may connect to port 6379"`,
	} {
		if text := readFile(t, filepath.Join(dir, "test", file, "seen.rego")); !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if out, code := w.CLI("policy", "test", dir); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	dir = t.TempDir()
	if out, code := w.CLI("policy", "init", dir, "--from-mesh"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	w.CommitPolicy(filesOf(t, dir))
	w.SyncPolicy()

	// Enforced, with everybody's way to everybody open.
	w.Apply(meshtest.Join(append(nodesWith(func(string) []string { return append([]string{"store"}, all...) }), optionsManifest("MeshOptions", "test", "enforce"))...))
	for _, callee := range declaredNodes { // each proxy of them takes the revision in its own time
		eventually(t, 20*time.Second, callee+" enforces", func() bool { return call("batch", callee, "GET", "/") == http.StatusForbidden })
	}
	for _, caller := range declaredNodes {
		for _, callee := range declaredNodes {
			w.AwaitRoute(caller, "http://"+meshtest.HostOf(callee)+"/")
			for _, c := range [][2]string{{"GET", "/orders/17"}, {"POST", "/orders/17"}, {"GET", "/"}} {
				want := http.StatusForbidden
				if mayCall(caller, callee, c[0], c[1]) {
					want = http.StatusOK
				}
				if status := call(caller, callee, c[0], c[1]); status != want {
					t.Errorf("%s %v of %s is answered %d, want %d", caller, c, callee, status, want)
				}
			}
		}
		eventually(t, 15*time.Second, caller+" and the store", func() bool {
			return (hungUp(speak(wayTo(t, w, caller))) == nil) == (caller == "web")
		})
	}
}

// filesOf are all of a folder, by their paths in it.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[name] = readFile(t, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
