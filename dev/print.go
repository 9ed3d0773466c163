package dev

import (
	"fmt"
	"path/filepath"
	"time"
)

// printWorld reports what runs where.
func (d *demo) printWorld() {
	w := d.cfg.Out
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // nobody left to tell
	say("\nA mesh of %d services, %.1f s after the start. Everything lies in %s", len(d.world.Nodes), time.Since(d.began).Seconds(), d.world.Dir)
	for _, n := range d.world.Nodes {
		say("  %-10s %-40s proxy %-13s application %s:%d", n.Name, nodeID(n.Name), n.Bind, n.App, appPort)
	}
	say("  policies   %s at %s", d.world.PolicyRepo, d.world.Commit[:12])
	say("  socket     %s\n", d.socket())
}

// printCalls prints the calls to try, and what they answer.
func (d *demo) printCalls() {
	w := d.cfg.Out
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // nobody left to tell
	proxy := func(name string) string { return fmt.Sprintf("http://%s:%d", d.world.node(name).Bind, egressPort) }
	call := func(args string) { say("  %s dev call %s", d.cfg.Exe, args) }
	say("Calls to try:")
	say("  # web may read orders: 200 over mTLS, with both identities; 1 in 10 by orders-v2")
	call("web /orders")
	say("  # or as any program does: curl -x %s %s/orders", proxy("web"), service)
	say("  # batch may not: 403, with the id of the decision")
	call("batch /orders")
	say("  # nobody reaches the admin pages: 403; then ask why: rule, file and line, commit")
	call("web /admin")
	say("  %s explain --socket %s ID", d.cfg.Exe, d.socket())
	say("  # an end user's own data: 403 without a token, 200 with one")
	call("web /account")
	call("web /account --token valid")
	say("  # certificates live %s and are renewed at a fifth of that: watch the serials", d.cfg.SVIDLifetime)
	say("  %s certs --watch --socket %s", d.cfg.Exe, d.socket())
	say("  # change the weights, and see what would change first")
	say("  %s diff --socket %s -f %s", d.cfg.Exe, d.socket(), filepath.Join(d.world.Dir, "mesh"))
	say("\nCtrl-C stops everything and removes the folder.")
}
