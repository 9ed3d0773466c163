package views

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/xds/predict"
)

func TestWhatAChangeDoesIsToldOfTheProxiesThatItReachesAndOfNoOthers(t *testing.T) {
	was := manifests + "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: other}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n"
	router := strings.Replace(was, "{virtualNode: {virtualNodeRef: {name: b}}}", "{virtualRouter: {virtualRouterRef: {name: r}}}", 1) + `---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: r}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}]
  routes: [{name: x, httpRoute: {match: {prefix: /x}, action: {weightedTargets: [{virtualNodeRef: {name: b}, weight: 1}]}}}]
`
	for _, row := range []struct{ before, after, want string }{
		{was, was, ""},
		{was, strings.Replace(was, "b.internal", "b.example", 1), "a: 0 added, 1 changed, 0 removed, 0 requests; "},
		{was, router, "a: 0 added, 1 changed, 0 removed, 2 requests; "}, // all but /x is 404 then
		{router, was, "a: 0 added, 1 changed, 0 removed, 2 requests; "},
		{was, manifests, "other: 0 added, 0 changed, 7 removed, 0 requests; "},
		{manifests, was, "other: 7 added, 0 changed, 0 removed, 0 requests; "},
	} {
		s := sourceOf(t)
		v := viewsOf(s)
		all, leftOut, err := v.Effects(storedOf(t, row.before), storedOf(t, row.after))
		if err != nil || leftOut != 0 {
			t.Fatal(leftOut, err)
		}
		got := ""
		for _, e := range all {
			n := 0
			for _, r := range e.Requests {
				n += len(r.Differences)
			}
			got += fmt.Sprintf("%s: %d added, %d changed, %d removed, %d requests; ", e.Of.Name, len(e.Added), len(e.Changed), len(e.Removed), n)
		}
		if got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}

func TestAnEffectNamesNoAddressThatNoProxyHas(t *testing.T) {
	all, _, err := viewsOf(sourceOf(t)).Effects(storedOf(t, manifests), storedOf(t, strings.ReplaceAll(manifests, "port: 80,", "port: 90,")))
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	listeners := map[string]bool{}
	for _, e := range all {
		for _, r := range slices.Concat(e.Added, e.Changed, e.Removed) {
			if r.Type == ads.ListenerType {
				listeners[r.Name] = true
			}
			if strings.Contains(r.Name, anyShape.Bind) {
				t.Errorf("%s: %s", e.Of.Name, r.Name)
			}
		}
	}
	if !listeners["lds_ingress_ADDRESS_80"] || !listeners["lds_ingress_ADDRESS_90"] {
		t.Errorf("listeners %v", listeners)
	}
}

func TestWhatTakesTooLongToForetellIsLeftOutAndCounted(t *testing.T) {
	v := viewsOf(sourceOf(t))
	in, at := v.source.Look().nodeInputs(), proxy.Node("m", "a")
	var sets [2]*ads.Set
	for i, text := range []string{manifests, strings.Replace(manifests, "metadata: {name: b}\nspec: {provider", "metadata: {name: b}\nspec: {awsName: c, provider", 1)} {
		in.model = storedOf(t, text)
		set, err := v.translate(in).set(Key{at, anyShape})
		if err != nil {
			t.Fatal(err)
		}
		sets[i] = set
	}
	for left, want := range map[int]int{0: 2, 1000: 0} { // one host is gone, one is new
		e := effects{known: map[string][]predict.Difference{}, left: left}
		if _, err := e.of(at, sets[0], sets[1]); err != nil || e.leftOut != want {
			t.Errorf("with %d routes to look at %d hosts are left out, want %d: %v", left, e.leftOut, want, err)
		}
	}
}
