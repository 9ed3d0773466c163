package views

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"signet.example/ads"
	"signet.example/server/model/modeltest"
	"signet.example/xds/effect"
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
	options := func(authorization string) string {
		return "---\napiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: m}\nspec: {authorization: " + authorization + "}\n"
	}
	for _, row := range []struct{ before, after, want string }{
		{was, was, ""},
		{was, strings.Replace(was, "b.internal", "b.example", 1), "a: 0 added, 1 changed, 0 removed, 0 requests; "},
		{was, router, "a: 0 added, 1 changed, 0 removed, 2 requests; "}, // GET and POST: all but /x is 404 then
		{router, was, "a: 0 added, 1 changed, 0 removed, 2 requests; "},
		{was, manifests, "other: 0 added, 0 changed, 7 removed, 0 requests; "},
		{manifests, was, "other: 7 added, 0 changed, 0 removed, 0 requests; "},
		{manifests, manifests + options("enforce"), ""}, // as without
		{manifests, manifests + options("observe"), "a: 0 added, 0 changed, 0 removed, 0 requests, observe; b: 0 added, 0 changed, 0 removed, 0 requests, observe; "},
		{manifests + options("observe"), manifests, "a: 0 added, 0 changed, 0 removed, 0 requests, enforce; b: 0 added, 0 changed, 0 removed, 0 requests, enforce; "},
	} {
		s := sourceOf(t)
		v := viewsOf(s)
		all, leftOut, err := v.Effects(storedOf(t, row.before), storedOf(t, row.after), true)
		if err != nil || leftOut != 0 {
			t.Fatal(leftOut, err)
		}
		got := ""
		for _, e := range all {
			n := 0
			for _, r := range e.Requests {
				n += len(r.Differences)
			}
			got += fmt.Sprintf("%s: %d added, %d changed, %d removed, %d requests", e.Of.Name, len(e.Added), len(e.Changed), len(e.Removed), n)
			if e.Authorization != "" {
				got += ", " + e.Authorization
			}
			got += "; "
		}
		if got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}

func TestAnEffectNamesNoAddressThatNoProxyHas(t *testing.T) {
	all, _, err := viewsOf(sourceOf(t)).Effects(storedOf(t, manifests), storedOf(t, strings.ReplaceAll(manifests, "port: 80,", "port: 90,")), true)
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

func TestWhoMayConnectToAListenerOfTCPIsToldBeforeAndAfter(t *testing.T) {
	const db = `---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: db}
spec: {listeners: [{portMapping: {port: 5432, protocol: tcp}TLS}], serviceDiscovery: {dns: {hostname: db.internal}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: db}
spec: {provider: {virtualNode: {virtualNodeRef: {name: db}}}}
`
	with := func(tls string, callers ...string) string {
		m := manifests + strings.Replace(db, "TLS", tls, 1)
		for _, c := range callers {
			m = strings.Replace(m, "metadata: {name: "+c+"}\nspec:\n", "metadata: {name: "+c+"}\nspec:\n  backendGroups: [{name: data}]\n", 1)
		}
		return m + "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: BackendGroup\nmetadata: {name: data}\nspec: {virtualservices: [{name: db}]}\n"
	}
	const a, b, itself, plain = "spiffe://test.example/m/a", "spiffe://test.example/m/b", "spiffe://test.example/m/db", "anyone in plaintext"
	strict := ", tls: {mode: STRICT, certificate: {acm: {certificateARN: arn}}}"
	for name, c := range map[string]struct {
		before, after string
		was, is       []string
	}{
		"a backend more":       {with("", "a"), with("", "a", "b"), []string{plain, a}, []string{plain, a, b}},
		"a backend less":       {with(strict, "a", "b"), with(strict, "b"), []string{a, b}, []string{b}},
		"no backend is left":   {with(strict, "a"), with(strict), []string{a}, []string{itself}},
		"plaintext is refused": {with("", "a"), with(strict, "a"), []string{plain, a}, []string{a}},
		"a new listener":       {manifests, with(strict, "a"), nil, []string{a}},
		"a listener less":      {with(strict, "a"), manifests, []string{a}, nil},
		"names that are given": {
			with(strict, "a"), with(strict[:len(strict)-1]+", validation: {trust: {sds: {secretName: \"spiffe://test.example\"}}, subjectAlternativeNames: {match: {exact: [\"spiffe://test.example/batch\"]}}}}", "a"),
			[]string{a},
			[]string{"spiffe://test.example/batch"},
		},
		"TLS of its own":              {with(strict, "a"), with(", tls: {mode: DISABLED, certificate: {acm: {certificateARN: arn}}}", "a"), []string{a}, []string{plain}},
		"something else of the same":  {with(strict, "a"), with(strict+", timeout: {tcp: {idle: {unit: s, value: 90}}}", "a"), nil, nil},
		"the target of an HTTP route": {with(strict, "a"), strings.Replace(with(strict, "a"), "b.internal", "c.internal", 1), nil, nil},
	} {
		all, _, err := viewsOf(sourceOf(t)).Effects(storedOf(t, c.before), storedOf(t, c.after), true)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []effect.Connections
		for _, e := range all {
			if got = append(got, e.Connections...); len(e.Connections) > 0 && e.Of.Name != "db" {
				t.Errorf("%s: of %s: %v", name, e.Of.Name, e.Connections)
			}
		}
		want := []effect.Connections{{Port: 5432, Before: c.was, After: c.is}}
		if c.was == nil && c.is == nil {
			want = nil
		}
		if !slices.EqualFunc(got, want, func(a, b effect.Connections) bool {
			return a.Port == b.Port && slices.Equal(a.Before, b.Before) && slices.Equal(a.After, b.After)
		}) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestWhomAChangeConcernsIsFoundWithoutALookAtRequestsOrConnections(t *testing.T) {
	all, leftOut, err := viewsOf(sourceOf(t)).Effects(storedOf(t, manifests), storedOf(t, strings.Replace(manifests, "metadata: {name: b}\nspec: {provider", "metadata: {name: b}\nspec: {awsName: c, provider", 1)), false)
	if err != nil || leftOut != 0 || len(all) != 1 || len(all[0].Requests) != 0 || len(all[0].Changed) != 1 {
		t.Errorf("%v, %d, %v", all, leftOut, err)
	}
}

// Whether a service has an address hangs on the names of nodes that it does not lead to.
func TestWhoCallsAServiceIsConcernedByANodeThatIsFoundUnderItsName(t *testing.T) {
	of := func(kind, name, spec string) string {
		return "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
	}
	node := func(hostname string) string {
		return of("VirtualNode", "c", "serviceDiscovery: {dns: {hostname: "+hostname+"}}, listeners: [{portMapping: {port: 81, protocol: http}}]")
	}
	at := func(hostname string) string {
		return manifests + "---\napiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: m}\nspec: {serviceAddresses: {}}\n" + node(hostname) +
			of("VirtualService", "c", "provider: {virtualNode: {virtualNodeRef: {name: c}}}") + of("VirtualNode", "d", "backends: [{virtualService: {virtualServiceRef: {name: c}}}]")
	}
	for what, c := range map[string]struct{ before, put, want string }{
		"a node is found under its name": {at("elsewhere"), node("B."), "[mesh/m/virtualNode/a mesh/m/virtualNode/c mesh/m/virtualNode/d]"},
		"and is no more":                 {at("b"), node("elsewhere"), "[mesh/m/virtualNode/a mesh/m/virtualNode/c mesh/m/virtualNode/d]"},
		"a service of the name comes":    {at("new"), of("VirtualService", "new", ""), "[mesh/m/virtualNode/c mesh/m/virtualNode/d]"},
		"one of another name comes":      {at("new"), of("VirtualService", "other", ""), "[]"},
	} {
		s := sourceOf(t)
		before := storedOf(t, c.before)
		next, err := before.With(modeltest.Objects(t, before.Model, c.put))
		if err != nil {
			t.Fatal(err)
		}
		was := s.look
		was.Model = before
		is := was
		is.Model = &stored{Model: next}
		if got := fmt.Sprint(Affected(was, is)); got != c.want {
			t.Errorf("%s: %v, want %s", what, got, c.want)
		}
	}
}
