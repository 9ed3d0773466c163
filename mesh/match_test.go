package mesh_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"signet.example/mesh/graphtest"
)

// orderOf is the order in which a router's routes are tried.
func orderOf(t *testing.T, routes []string) []string {
	t.Helper()
	text := object("Mesh", "m") + "spec: {}\n---\n" + object("VirtualNode", "n") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}}]}\n---\n" +
		object("VirtualRouter", "r") + "spec:\n  listeners: [{portMapping: {port: 1, protocol: http}}]\n  routes:\n"
	for _, r := range routes {
		name, match, _ := strings.Cut(r, " ")
		priority, match, _ := strings.Cut(match, " ")
		if priority != "-" {
			priority = "priority: " + priority + ", "
		} else {
			priority = ""
		}
		text += fmt.Sprintf("    - {name: %s, %shttpRoute: {match: {%s}, action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}}}\n", name, priority, match)
	}
	var names []string
	for _, r := range graphtest.Graph(t, "test.yaml", []byte(text)).Router(router("m", "r")).Routes {
		names = append(names, r.Name)
	}
	return names
}

func TestTheOrderOfARoutersRoutesChangesNothing(t *testing.T) {
	routes := []string{
		"priority 0 prefix: /",
		"exact - path: {exact: /users/7}",
		"longer - prefix: /users/7/orders/of/all/years",
		"prefix - prefix: /users/123456789",
		"regex - path: {regex: '/users/[0-9]+/x?'}",
		"conditions - prefix: /users, method: GET, scheme: http, queryParameters: [{name: q}], headers: [{name: a}]",
		"two - prefix: /users, headers: [{name: a}, {name: b}]",
		"a - prefix: /users, headers: [{name: a}]",
		"b - prefix: /users, method: GET",
		"c - prefix: /users, queryParameters: [{name: q}]",
		"last 1000 prefix: /",
		"none - prefix: /",
	}
	want := []string{"priority", "exact", "longer", "prefix", "regex", "conditions", "two", "a", "b", "c", "last", "none"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		r.Shuffle(len(routes), func(i, j int) { routes[i], routes[j] = routes[j], routes[i] })
		if got := orderOf(t, routes); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}
