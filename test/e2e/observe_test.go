package e2e

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

func optionsManifest(kind, name, authorization string) string {
	return "apiVersion: signet.example/v1alpha1\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: {authorization: " + authorization + "}\n"
}

// TestAMeshIsObservedAndThenEnforced goes the way of a mesh that was imported: its policy lets
// everything through and says what it would deny, one node enforces, then all do.
func TestAMeshIsObservedAndThenEnforced(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "shop", "store"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "shop", "store"), meshtest.VirtualNode("shop", ""), meshtest.VirtualNode("store", ""),
			meshtest.ServiceOfNode("shop", "shop"), meshtest.ServiceOfNode("store", "store"), strings.Replace(optionsManifest("MeshOptions", "test", "observe"), "observe}", "observe, envoyHeaders: suppress}", 1)),
		Policy: map[string]string{"orders.rego": "package signet.authz\n\nallow contains \"reads\" if input.request.method == \"GET\"\nallow contains \"health\" if input.request.path == \"/health\"\n"},
	})
	shop, store := "http://"+meshtest.HostOf("shop"), "http://"+meshtest.HostOf("store")
	w.AwaitRoute("web", shop+"/")
	w.AwaitRoute("web", store+"/")
	post := func(url string) int {
		a, err := meshtest.Do(t, w.Client("web"), http.MethodPost, url)
		if err != nil {
			t.Fatal(err)
		}
		return a.Status
	}
	if status := post(shop + "/orders"); status != http.StatusOK {
		t.Errorf("what is observed is answered %d", status)
	}
	if out, code := w.CLI("check"); code != 0 || !strings.Contains(out, "SIG036") {
		t.Errorf("check does not say that the mesh is observed: exit %d\n%s", code, out)
	}

	// What would be denied is listed within 2 s, and explained.
	var id string
	eventually(t, 2*time.Second, "the would-be denial is listed", func() bool {
		for _, d := range decisionsOf(t, w, "--denied", "--from", "test/web", "--to", "test/shop") {
			if d.Observed && !d.Allowed && d.Method == http.MethodPost && d.Path == "/orders" {
				id = d.ID
			}
		}
		return id != ""
	})
	if out, code := w.CLI("explain", id); code != 0 || !strings.Contains(out, "let through, since its destination is observed; else it would be denied by policy") || !strings.Contains(out, "orders.rego:3") {
		t.Errorf("explain: exit %d\n%s", code, out)
	}
	if list := decisionsOf(t, w, "--denied", "--to", "test/store"); len(list) > 0 {
		t.Errorf("nothing was denied there: %v", list)
	}

	// One node enforces, the other one goes on as the mesh does.
	w.Apply(optionsManifest("VirtualNodeOptions", "shop", "enforce"))
	eventually(t, 10*time.Second, "shop denies", func() bool { return post(shop+"/orders") == http.StatusForbidden })
	if status := post(store + "/orders"); status != http.StatusOK {
		t.Errorf("store is answered %d", status)
	}
	// What check says to run gives options that have all else as it was.
	out, _ := w.CLI("check")
	said := regexp.MustCompile(`\(signet (get meshoptions \S+ -o yaml)\)`).FindStringSubmatch(out)
	if said == nil {
		t.Fatalf("check has no command by which the options are seen:\n%s", out)
	}
	options, code := w.CLI(strings.Fields(said[1])...)
	enforced := strings.Replace(options, "authorization: observe", "authorization: enforce", 1)
	if code != 0 || enforced == options || !strings.Contains(options, "envoyHeaders: suppress") {
		t.Fatalf("%s: exit %d\n%s", said[1], code, options)
	}
	w.Apply(enforced)
	eventually(t, 10*time.Second, "store denies, too", func() bool { return post(store+"/orders") == http.StatusForbidden })
	if out, _ := w.CLI("check"); strings.Contains(out, "SIG036") {
		t.Errorf("check says that something is observed:\n%s", out)
	}
}

type decision struct {
	ID, Method, Path, Source, Destination string
	Allowed, Observed                     bool
}

func decisionsOf(t *testing.T, w *meshtest.World, args ...string) []decision {
	t.Helper()
	out, stderr, code := w.CLISplit(append([]string{"decisions", "-o", "json"}, args...)...)
	var answer struct{ Decisions []decision }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 0 {
		t.Fatalf("decisions %v: exit %d, %v\n%s%s", args, code, err, out, stderr)
	}
	return answer.Decisions
}
