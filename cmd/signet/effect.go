package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/api"
)

// printEffect writes tables: whose configuration becomes another one, which requests do not
// end as before, and, where there are any, to which ports not the same may connect.
func printEffect(c *cobra.Command, e *api.Effect) error {
	var nodes, requests [][]string
	for _, n := range e.GetNodes() {
		counts := map[string]int{}
		for _, r := range n.GetResources() {
			counts[r.GetAction()]++
		}
		var what []string
		for _, r := range n.GetResources() {
			sign := map[string]string{"added": "+", "changed": "~", "removed": "-"}[r.GetAction()]
			if what = append(what, sign+kindOfType(r.GetType())+" "+r.GetName()); len(what) == fewNamed {
				break
			}
		}
		if more := len(n.GetResources()) - len(what); more > 0 {
			what = append(what, fmt.Sprintf("and %d more", more))
		}
		if a := n.GetAuthorization(); a != "" {
			what = append(what, "authorization "+a)
		}
		nodes = append(nodes, []string{
			callerName(n.GetNode()), fewOf(n.GetProxies()),
			fmt.Sprint(counts["added"]), fmt.Sprint(counts["changed"]), fmt.Sprint(counts["removed"]), strings.Join(what, ", "),
		})
	}
	at := map[string]int{} // a row, by all of it but the method
	for _, r := range e.GetRequests() {
		var from []string
		for _, n := range r.GetFrom() {
			from = append(from, callerName(n))
		}
		before, after := ends(r.GetBefore(), r.GetAfter())
		row := []string{r.GetMethod(), requestLine(r), fewOf(from), before, after, r.GetReason()}
		key := strings.Join(row[1:], "\n")
		if i, ok := at[key]; ok {
			methods := append(strings.Split(requests[i][0], ","), r.GetMethod())
			slices.Sort(methods)
			requests[i][0] = strings.Join(methods, ",")
			continue
		}
		at[key] = len(requests)
		requests = append(requests, row)
	}
	var connections [][]string
	for _, l := range e.GetConnections() {
		gone, fresh, same := apart(l.GetBefore(), l.GetAfter())
		connections = append(connections, []string{fmt.Sprintf("%s:%d", callerName(l.GetNode()), l.GetPort()), fewOf(fresh), fewOf(gone), fewOf(same)})
	}
	w := c.OutOrStdout()
	for i, t := range []struct {
		titles []string
		rows   [][]string
		none   string
	}{
		{[]string{"NODE", "PROXIES", "ADDED", "CHANGED", "REMOVED", "RESOURCES"}, nodes, "no proxy's configuration changes"},
		{[]string{"METHOD", "REQUEST", "FROM", "BEFORE", "AFTER", "REASON"}, requests, "no request ends in another way by its route"},
		{[]string{"PORT", "MAY CONNECT NOW", "NO MORE", "AS BEFORE"}, connections, ""},
	} {
		if len(t.rows) == 0 && t.none == "" {
			continue
		}
		var err error
		if i > 0 {
			_, err = fmt.Fprintln(w)
		}
		switch {
		case err != nil:
		case len(t.rows) == 0:
			_, err = fmt.Fprintln(w, t.none)
		default:
			laid := &table{titles: t.titles, header: true}
			for at := range t.titles {
				laid.from, laid.width = append(laid.from, at), append(laid.width, 0)
			}
			err = laid.print(w, t.rows)
		}
		if err != nil {
			return err
		}
	}
	if n := e.GetLeftOut(); n > 0 {
		warn(c.ErrOrStderr(), []string{fmt.Sprintf("the requests of %d hosts were not all looked at: there are too many, or routes whose outcome is not foretold", n)})
	}
	return nil
}

// apart is what of two lists in order is in the first alone, in the second alone, and in both.
func apart(before, after []string) (gone, fresh, same []string) {
	for _, name := range before {
		if slices.Contains(after, name) {
			same = append(same, name)
		} else {
			gone = append(gone, name)
		}
	}
	for _, name := range after {
		if !slices.Contains(before, name) {
			fresh = append(fresh, name)
		}
	}
	return gone, fresh, same
}

// fewNamed are named in a cell of a table; more are counted.
const fewNamed = 3

func fewOf(names []string) string {
	if len(names) <= fewNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:fewNamed], ", "), len(names)-fewNamed)
}

func callerName(n *api.VirtualNodeRef) string {
	name := n.GetMesh() + "/" + n.GetName()
	if n.GetGateway() {
		name = "gateway " + name
	}
	return name
}

// requestLine is as signet routes takes it, without the method.
func requestLine(r *api.Effect_Request) string {
	var b strings.Builder
	if r.GetScheme() != "http" {
		b.WriteString(r.GetScheme() + "://")
	}
	b.WriteString(r.GetAuthority() + r.GetPath())
	for _, h := range r.GetHeaders() {
		b.WriteString(" -H '" + h.GetName() + ": " + h.GetValue() + "'")
	}
	return b.String()
}

// ends is how a request ends before and after, in a few words: what is the same in both is
// left out.
func ends(before, after *api.RoutesResponse) (was, is string) {
	a, b := endsAs(before), endsAs(after)
	if len(a) == len(b) && len(a) > 1 {
		for i := len(a) - 1; i > 0; i-- {
			if a[i] == b[i] {
				a, b = slices.Delete(a, i, i+1), slices.Delete(b, i, i+1)
			}
		}
	}
	text := func(parts []string) string {
		return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", ")
	}
	return text(a), text(b)
}

// endsAs is the route with where it leads, the bound of time, and what becomes of host and
// path; or a status alone.
func endsAs(r *api.RoutesResponse) []string {
	switch {
	case r.GetRoute() == "":
		return []string{"404"}
	case r.GetStatus() != 0:
		return []string{fmt.Sprint(r.GetStatus())}
	}
	total := uint32(0)
	for _, t := range r.GetTargets() {
		total += t.GetWeight()
	}
	var to []string
	for _, t := range r.GetTargets() {
		text := strings.TrimPrefix(t.GetCluster(), "cds_egress_")
		if len(r.GetTargets()) > 1 {
			text += fmt.Sprintf(" %.4g %%", 100*float64(t.GetWeight())/float64(max(1, total)))
		}
		to = append(to, text)
	}
	limit, host, path := "", "", ""
	if r.GetTimeout() != nil {
		limit = "within " + r.GetTimeout().AsDuration().String()
	}
	if r.GetHostRewrite() != "" {
		host = "host " + r.GetHostRewrite()
	}
	if r.GetPathRewrite() != "" {
		path = "path " + r.GetPathRewrite()
	}
	return []string{r.GetRoute() + ": " + strings.Join(to, ", "), limit, host, path}
}
