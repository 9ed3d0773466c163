package draft_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"signet.example/policy/draft"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// traffic are calls of web at orders, each a second after the one before.
func traffic(lines ...string) (list []draft.Seen) {
	for i, line := range lines {
		method, path, _ := strings.Cut(line, " ")
		list = append(list, draft.Seen{
			Source: "spiffe://prod.example/shop/web", Destination: "spiffe://prod.example/shop/orders",
			Method: method, Path: path, Time: noon.Add(time.Duration(i) * time.Second),
		})
	}
	return list
}

func TestRulesAreWrittenForWhatWasSeenWithItsCounts(t *testing.T) {
	all := traffic(
		"GET /", "GET /orders", "GET /orders/17", "GET /orders/18", "PUT /orders/19", "GET /orders/3f2b8c1e-0000-4000-8000-1234567890ab/items",
		"GET /orders/17/items", "POST /orders", "GET /a[b]{c}", "GET /orders/17/",
	)
	all[2].Observed = true
	of := func(change func(*draft.Seen)) {
		s := traffic("GET /more")[0]
		change(&s)
		all = append(all, s)
	}
	of(func(s *draft.Seen) { s.Denied = true })
	of(func(s *draft.Seen) { s.Forbidden, s.Observed = "nobody may", true })
	of(func(s *draft.Seen) { s.Exempt = true })
	of(func(s *draft.Seen) { s.Destination = "spiffe://prod.example/shop/headers" })
	of(func(s *draft.Seen) { s.Source = "" })
	of(func(s *draft.Seen) { s.Source, s.Path = "", "/health" })
	of(func(s *draft.Seen) { s.Source, s.Path = "", "/health" })
	of(func(s *draft.Seen) { s.Source, s.Path = "ingress/alb", "/health" })
	of(func(s *draft.Seen) { s.Path = `/a\x00` })
	of(func(s *draft.Seen) { s.Path = "/" + strings.Repeat("x", 1023) })
	of(func(s *draft.Seen) { s.Destination = "spiffe://prod.example/shop/gone" })
	of(func(s *draft.Seen) { s.Destination = "spiffe://other.example/shop/orders" })
	of(func(s *draft.Seen) { s.Source = "spiffe://prod.example/elsewhere/job" })
	of(func(s *draft.Seen) { s.Source, s.Destination = "", "spiffe://prod.example/shop/edge" })
	of(func(s *draft.Seen) {
		s.Destination, s.Method, s.Path, s.Port = "spiffe://prod.example/shop/store", "tcp", "", 6379
	})
	d := draft.FromTraffic(shop(t), all)
	served(t, d)
	golden(t, "seen.txt", d)
}

// However many paths there are, the rules are few, and allow all that was seen.
func TestPathsAreMergedToAFewTemplates(t *testing.T) {
	var ids, words, names, deep []string
	for i := range 200 {
		ids = append(ids, fmt.Sprintf("GET /users/%d/orders/%d", i, i*7))
		words = append(words, "GET /users/"+strings.Repeat("x", 1+i%50)+"/orders")
		names = append(names, "GET /"+strings.Repeat("y", 1+i%30))
		deep = append(deep, "GET /a"+strings.Repeat("/b", i%60))
	}
	for what, row := range map[string]struct {
		paths []string
		want  string // all conditions on the path
	}{
		"ids":         {ids, `glob.match("/users/*/orders/*", ["/"], input.request.path)`},
		"names":       {words, `glob.match("/users/*/orders", ["/"], input.request.path)`},
		"too many":    {names, ""},
		"few":         {gets("/users", "/orders"), `input.request.path == "/orders"` + "\n" + `input.request.path == "/users"`},
		"all of deep": {deep, ""},
		"long":        {gets("/"+strings.Repeat("long/", 50)+"a", "/"+strings.Repeat("long/", 50)+"b"), ""},
	} {
		d := draft.FromTraffic(shop(t), traffic(row.paths...))
		served(t, d)
		rules := d.Files[0].Rules
		if rules > 20 || rules == 0 {
			t.Errorf("%s: %d rules", what, rules)
		}
		var conditions []string
		for line := range strings.Lines(d.Files[0].Content) {
			if strings.Contains(line, "input.request.path") {
				conditions = append(conditions, strings.TrimSpace(line))
			}
		}
		if got := strings.Join(conditions, "\n"); row.want != "" && got != row.want {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, row.want)
		}
		allowsAll(t, d, row.paths)
	}
}

func gets(paths ...string) (list []string) {
	for _, p := range paths {
		list = append(list, "GET "+p)
	}
	return list
}
