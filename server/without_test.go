package server_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
)

// warned are the warnings of a dry run; the change itself has the same.
func (r *rig) warned(manifests string) string {
	r.t.Helper()
	dry, err := r.admin.Apply(r.t.Context(), &api.ApplyRequest{Sources: []*api.Source{{File: "mesh.yaml", Content: []byte(manifests)}}, DryRun: true})
	if err != nil {
		r.t.Fatal(err)
	}
	text, done := strings.Join(dry.GetWarnings(), "\n"), strings.Join(r.apply(manifests).GetWarnings(), "\n")
	if text != done {
		r.t.Errorf("a dry run says %q, and the apply %q", text, done)
	}
	return text
}

func TestAChangeOfGroupsNamesTheHostsThatItLeavesInNone(t *testing.T) {
	r, authority := newRacks(t)
	h := newHost(r)
	if err := h.prove(authority.Host("rack-1")); err != nil {
		t.Fatal(err)
	}
	r.join("front") // its token named the group: no selectors matter to it
	alone := groupOf("racks", "x509pop:subject:cn:rack-1")
	for _, c := range []struct{ what, change, want string }{
		{"another one that fits", groupOf("more", "x509pop:subject:cn:rack-1"), "more, racks all fit this host"},
		{"it is in none before", groupOf("third", "x509pop:subject:cn:rack-1"), ""},
		{"it is in one again", groupOf("more", "x509pop:subject:cn:rack-2") + groupOf("third", "x509pop:subject:cn:rack-3"), ""},
		{"a slip", groupOf("racks", "x509pop:subject:cn:rack-l"), "no NodeGroup's selectors fit this host"},
		{"mended", alone, ""},
		{"it is in another one", groupOf("racks", "x509pop:subject:cn:rack-9") + groupOf("more", "x509pop:subject:cn:rack-1"), ""},
	} {
		got := r.warned(c.change)
		if !strings.Contains(got, c.want) || strings.Contains(got, "would be in no group") != (c.want != "") || c.want != "" && !strings.Contains(got, "agent "+h.id+" (rack-1)") {
			t.Errorf("%s: it says %q, want %q", c.what, got, c.want)
		}
	}
	resp, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "NodeGroup", Name: "more"})
	if text := fmt.Sprint(resp.GetWarnings()); err != nil || !strings.Contains(text, "would be in no group") {
		t.Errorf("a delete says %q, %v", text, err)
	}
	r.apply(alone)
	for range 7 {
		if err := newHost(r).prove(authority.Host("rack-1")); err != nil {
			t.Fatal(err)
		}
	}
	text := r.warned(groupOf("racks", "x509pop:subject:cn:rack-2"))
	if n := strings.Count(text, "its workloads"); n != 5 || !strings.Contains(text, "3 more agents would be in no group") {
		t.Errorf("of 8 hosts it says %q", text)
	}
}

func TestAGroupThatGetsSelectorsKeepsItsHostsByNameAndTakesNoMoreTokens(t *testing.T) {
	r, _ := newRacks(t)
	h := r.join("front")
	confined := groupOf("front", "x509pop:subject:cn:rack-7")
	if got := r.warned(confined); !strings.Contains(got, "group front gets selectors") || !strings.Contains(got, h.id) {
		t.Errorf("it says %q", got)
	}
	r.apply(confined)
	if got := r.warned(groupOf("front", "x509pop:subject:cn:rack-8")); strings.Contains(got, h.id) {
		t.Errorf("it had selectors before: %q", got)
	}
	if _, err := r.admin.CreateToken(t.Context(), &api.CreateTokenRequest{Group: "front"}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "has selectors") {
		t.Errorf("a token: %v", err)
	}
}

func TestSeveralGroupsThatFitAHostAreNamedWithWhatMendsIt(t *testing.T) {
	r, authority := newRacks(t)
	if err := newHost(r).prove(authority.Host("rack-1")); err != nil {
		t.Fatal(err)
	}
	r.apply(groupOf("more", "x509pop:subject:cn:rack-1"))
	if f := awaitFinding(t, r, "SIG024", "more, racks"); !strings.HasSuffix(f.GetFix(), "all but one of: more, racks") {
		t.Errorf("its fix is %q", f.GetFix())
	}
}

func TestAServiceThatIsLedToANodeWithoutEndpointIsWarnedOf(t *testing.T) {
	r := newRig(t)
	r.apply(registry + lonely)
	moved := strings.Replace(lonely, "virtualNodeRef: {name: orders}", "virtualNodeRef: {name: sales}", 1) +
		"---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: sales}\nspec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}\n"
	if strings.HasPrefix(moved, lonely) {
		t.Fatal("the mesh is another one")
	}
	if text := r.warned(moved); strings.Contains(text, "no endpoint") {
		t.Errorf("of a service that nobody served before it says %q", text)
	}
	r.apply(lonely)
	report, _ := r.join("back").session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
	r.awaitMended("SIG021", "")
	if text := r.warned(lonely); strings.Contains(text, "no endpoint") {
		t.Errorf("of what stays as it is it says %q", text)
	}
	if text := r.warned(moved); !strings.Contains(text, "virtual service shop/orders: it leads to sales, which has no endpoint: all of its calls fail") {
		t.Errorf("it says %q", text)
	}
}

func TestAChangeOfBindingsNamesTheProxiesThatItLeavesWithoutOne(t *testing.T) {
	r := newRig(t)
	r.apply(registry + lonely)
	binding := func(name, group, selectors string) string {
		return "---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: " + name + "}\nspec: {group: " + group + ", mesh: shop, virtualNode: orders, selectors: [" + selectors + "]}\n"
	}
	name := `"signet:proxy:orders"`
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "Binding", Name: "orders"}); err != nil {
		t.Fatal(err)
	}
	r.apply(binding("own", "back", name))
	h := r.join("back")
	report, _ := h.session()
	back := func() {
		report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
		r.awaitMended("SIG021", "")
	}
	back()
	alone, service := "would have no Binding for virtual node shop/orders", "virtual service shop/orders: it leads to orders, which then has no endpoint: all of its calls fail"
	for _, c := range []struct {
		what, change string
		want         []string
	}{
		{"as it was", binding("own", "back", name), nil},
		{"another group", binding("own", "front", name), []string{"proxy orders of agent " + h.id, "in group back", alone, service}},
		{"its own group again", binding("own", "back", name), nil},
		{"another proxy", binding("own", "back", `"signet:proxy:other"`), []string{alone, service}},
		{"this one again", binding("own", "back", name), nil},
		{"asks for more", binding("own", "back", name+`, "unix:uid:7"`), []string{"only if it has what a Binding then asks for: own (signet:proxy:orders, unix:uid:7)"}},
		{"asks for less", binding("own", "back", `"unix:uid:7"`), nil},
		{"a second one", binding("two", "back", `"unix:uid:7"`), nil},
	} {
		got := r.warned(c.change)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: it says %q, want %q", c.what, got, want)
			}
		}
		if c.want == nil {
			if strings.Contains(got, "proxy orders") {
				t.Errorf("%s: it says %q", c.what, got)
			}
			back()
		}
	}
	for _, c := range []struct {
		name string
		want bool
	}{{"two", false}, {"own", true}} {
		resp, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "Binding", Name: c.name})
		if text := strings.Join(resp.GetWarnings(), "\n"); err != nil || strings.Contains(text, alone) != c.want || strings.Contains(text, service) != c.want {
			t.Errorf("a deletion of %s says %q, %v", c.name, text, err)
		}
	}
}

func TestAHostThatAChangeMovesNamesTheProxiesThatHaveNoBindingThere(t *testing.T) {
	r, authority := newRacks(t)
	h := newHost(r)
	if err := h.prove(authority.Host("rack-1")); err != nil {
		t.Fatal(err)
	}
	r.apply(lonely + "---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: racked}\nspec: {group: racks, mesh: shop, virtualNode: orders, selectors: [\"unix:uid:1\"]}\n")
	report, _ := h.session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
	r.awaitMended("SIG021", "")
	got := r.warned(groupOf("racks", "x509pop:subject:cn:rack-9") + groupOf("more", "x509pop:subject:cn:rack-1"))
	if !strings.Contains(got, "in group more, would have no Binding for virtual node shop/orders") || !strings.Contains(got, "which then has no endpoint") {
		t.Errorf("it says %q", got)
	}
}
