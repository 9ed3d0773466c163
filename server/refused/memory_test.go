package refused

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/ads"
	"signet.example/proxy"
)

// viewOf is a view of proxies at an address.
func viewOf(of proxy.Ref, bind string) View {
	s := proxy.Shape{
		Bind: bind, App: "127.0.0.1", Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort(bind + ":15001")},
		AuthzSocket: "/run/authz.sock", WayoutSocket: "/run/wayout.sock", EnvoyVersion: "1.40.0",
	}
	s.Suit(of)
	return View{of, s}
}

func setOf(t *testing.T, list ...*ads.Resource) *ads.Set {
	t.Helper()
	set, err := ads.NewSet(list...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func cluster(name, body string) *ads.Resource {
	return &ads.Resource{Type: ads.ClusterType, Name: name, Version: "v" + name, Body: []byte(body)}
}

func TestWhatIsRefusedIsKnownAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refused.json")
	gateway := proxy.For("shop", "edge", true)
	all := of(by(route, "one", "1.40"), by(route, "two", "1.39"), by(other, "one", "1.40"))
	ended := Refusal{Node: gateway, Agent: "one", Type: "listeners", Name: "l", Version: "1", Form: "1", Ended: true}
	all.Add(ended)
	all[web].Overrule("1.40", func(at Resource) bool { return at == other })
	whole := setOf(t, cluster("c", "body"), &ads.Resource{Type: ads.ViewType, Name: "n", Version: "1"})
	have := map[View]Had{viewOf(web, "127.0.0.2"): {"one", whole}, viewOf(gateway, "127.0.0.3"): {"two", setOf(t, cluster("d", "\x00\xff"))}}
	if err := all.FileOf(have).Write(path); err != nil {
		t.Fatal(err)
	}

	got, last, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Count() != 3 || !got[web].Stand(route, "1.40", "one") || !got[web].Stand(route, "1.39", "") || !got[gateway].Stand(Resource{"listeners", "l", "1"}, "", "two") {
		t.Errorf("refused after the restart: %+v", got)
	}
	if got[web].Has(other, "one", "1.40") {
		t.Error("what others have taken is remembered")
	}
	if r, _ := got[web].First(route); r != by(route, "one", "1.40") {
		t.Errorf("of one it is known %+v", r)
	}
	if len(last) != 2 {
		t.Fatalf("what %d views had is known", len(last))
	}
	for view, had := range have {
		if now := last[view]; now.Agent != had.Agent || now.Set.Version() != had.Set.Without(ads.ViewType).Version() {
			t.Errorf("%s: it had %v, now it is %v", view.Node, had.Set.Version(), now)
		}
	}
	if c := last[viewOf(gateway, "127.0.0.3")].Set.Get(ads.ClusterType, "d"); string(c.Body) != "\x00\xff" {
		t.Errorf("its bytes are %q", c.Body)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
}

// The release before wrote no forms: then it is the version.
func TestAFileOfTheReleaseBeforeIsRead(t *testing.T) {
	r := by(route, "one", "1.40")
	r.Form, r.Version = "", "7"
	n := of(r)[web]
	if !n.Stand(Resource{route.Type, route.Name, "7"}, "1.40", "") {
		t.Errorf("it is %+v", n)
	}
}

func TestWhatIsRememberedOfViewsIsBounded(t *testing.T) {
	have := map[View]Had{}
	for i := range mostRemembered/mostOfOne + 2 {
		have[viewOf(web, fmt.Sprintf("127.0.0.%d", i+2))] = Had{fmt.Sprint(i), setOf(t, cluster("c", strings.Repeat("x", mostOfOne-100)))}
	}
	file := of(by(route, "one", "1.40")).FileOf(have)
	if n := len(file.content.Had); n != mostRemembered/mostOfOne || file.bytes > mostRemembered { // names take room, too
		t.Errorf("what %d of %d views had is remembered, %d bytes", n, len(have), file.bytes)
	}
	if len(file.content.Refused) != 1 {
		t.Error("that it was refused is forgotten with what they had")
	}
}

// N15-2: one agent had 64 MiB written of shapes that it made up, and left the others no room.
func TestWhatOneAgentHasMadeUpIsNotRememberedInThePlaceOfOthers(t *testing.T) {
	have, nodes := map[View]Had{}, map[string]int{}
	eighth := strings.Repeat("x", mostOfOne/8-100)
	for i := range 100 {
		have[viewOf(web, fmt.Sprintf("127.0.1.%d", i))] = Had{"liar", setOf(t, cluster("c", eighth))}
	}
	for _, name := range []string{"a", "b", "c"} { // honest ones have several nodes, the liar as well
		have[viewOf(proxy.Node("shop", name), "127.0.0.2")] = Had{"liar", setOf(t, cluster("c", eighth))}
		have[viewOf(proxy.Node("other", name), "127.0.0.2")] = Had{"one", setOf(t, cluster("c", eighth))}
	}
	file := of().FileOf(have)
	for _, h := range file.content.Had {
		nodes[h.Agent+" "+h.Node]++
	}
	want := map[string]int{
		"one mesh/other/virtualNode/a": 1, "one mesh/other/virtualNode/b": 1, "one mesh/other/virtualNode/c": 1,
		"liar mesh/shop/virtualNode/a": 1, "liar mesh/shop/virtualNode/b": 1, "liar mesh/shop/virtualNode/c": 1,
		"liar " + web.String(): 5,
	}
	if !maps.Equal(nodes, want) {
		t.Errorf("remembered are %v, want %v", nodes, want)
	}
}

func TestAFileThatIsNotThereHasNothingAndOneThatIsDamagedSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refused.json")
	if all, last, err := Read(path); err != nil || len(all)+len(last) != 0 {
		t.Errorf("without a file: %v, %v, %v", all, last, err)
	}
	shape, err := viewOf(web, "127.0.0.2").Shape.Metadata().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	twice := []*resourceHad{{Type: "t", Name: "n"}, {Type: "t", Name: "n"}}
	for name, content := range map[string]any{
		"no node":    remembered{Had: []had{{Node: "nobody", Shape: shape}}},
		"no shape":   remembered{Had: []had{{Node: web.String(), Shape: json.RawMessage(`{}`)}}},
		"half a set": remembered{Had: []had{{Node: web.String(), Shape: shape, Resources: twice}}},
		"no object":  7,
	} {
		b, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if all, last, err := Read(path); err == nil || !strings.Contains(err.Error(), "what proxies refused: ") || all != nil || last != nil {
			t.Errorf("%s: %v, %v, %v", name, all, last, err)
		}
	}
	if err := of().FileOf(nil).Write(filepath.Join(path, "in", "a", "file")); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a write that fails: %v", err)
	}
}
