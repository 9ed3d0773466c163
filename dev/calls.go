package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"signet.example/api"
)

// answer of one call through a node's proxy.
type answer struct {
	Status   int
	Greeting Greeting
	// DecisionID and Denied come from a denial's headers.
	DecisionID, Denied string
	Err                error
}

func (a answer) String() string {
	if a.Err != nil {
		return a.Err.Error()
	}
	out := fmt.Sprint(a.Status)
	if a.Denied != "" {
		out += " denied: " + a.Denied
	}
	return out
}

// call GETs a path of the orders service as a node would: through the node's
// own proxy.
func (d *demo) call(ctx context.Context, from, path, token string) answer {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := get(ctx, fmt.Sprintf("%s:%d", d.world.node(from).Bind, egressPort), service+path, token)
	if err != nil {
		return answer{Err: err}
	}
	defer func() { _ = resp.Body.Close() }() // read below as far as needed
	a := answer{Status: resp.StatusCode, DecisionID: resp.Header.Get("X-Signet-Decision-Id"), Denied: resp.Header.Get("X-Signet-Denied")}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{Err: err}
	}
	if resp.StatusCode == http.StatusOK {
		a.Err = json.Unmarshal(body, &a.Greeting)
	}
	return a
}

// row of the table of calls.
type row struct {
	what, expected, seen string
	ok                   bool
	more                 []string // lines below the row
}

// callAll makes every call and prints what was expected and what was seen.
func (d *demo) callAll(ctx context.Context) error {
	var rows []row
	calls := []func(context.Context) row{
		d.callMTLS, d.callDenied, d.callAdmin, d.callWithoutToken, d.callWithToken, d.callExpired, d.callWeighted, d.callRotated,
		d.callImpostor, d.callAuthzKilled, d.callEnvoyKilled, d.callServerKilled, d.callKeyExchange,
	}
	if root() { // nobody else can be somebody else
		calls = append(calls, d.callStranger)
	}
	for _, c := range calls {
		r := c(ctx)
		d.progress(r.what)
		rows = append(rows, r)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := printRows(d.cfg.Out, rows); err != nil {
		return err
	}
	for _, r := range rows {
		if !r.ok {
			return ErrDiffers
		}
	}
	return nil
}

func printRows(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "CALL\tEXPECTED\tSEEN\t") // Flush tells
	for _, r := range rows {
		mark := "ok"
		if !r.ok {
			mark = "DIFFERS"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.what, r.expected, r.seen, mark) // Flush tells
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		for i, line := range r.more {
			if i == 0 {
				_, _ = fmt.Fprintf(w, "\n%s:\n", r.what) // the next write tells
			}
			if _, err := fmt.Fprintf(w, "  %s\n", line); err != nil {
				return err
			}
		}
	}
	return nil
}

func nodeID(name string) string { return "spiffe://" + trustDomain + "/" + meshName + "/" + name }

func (d *demo) callMTLS(ctx context.Context) row {
	a := d.call(ctx, "web", "/orders", "")
	g := a.Greeting
	return row{
		what:     "web → /orders",
		expected: "200, caller " + nodeID("web"),
		seen:     fmt.Sprintf("%s, caller %s", a, orNobody(g.Caller)),
		ok:       a.Status == 200 && g.Caller == nodeID("web") && strings.HasPrefix(g.Identity, nodeID("orders-v")),
		more:     []string{"client " + g.Caller, "server " + g.Identity},
	}
}

func orNobody(s string) string {
	if s == "" {
		return "nobody"
	}
	return s
}

func (d *demo) callDenied(ctx context.Context) row {
	return d.denied(ctx, "batch → /orders", "batch", "/orders", "", http.StatusForbidden,
		func(dec *api.Decision) string { return names(dec.GetFailed()) }, "web may read orders")
}

func (d *demo) callAdmin(ctx context.Context) row {
	return d.denied(ctx, "web → /admin", "web", "/admin", "", http.StatusForbidden,
		func(dec *api.Decision) string { return names(dec.GetRules()) }, "nobody reaches the admin pages")
}

func (d *demo) callWithoutToken(ctx context.Context) row {
	return d.denied(ctx, "web → /account, no token", "web", "/account", "", http.StatusForbidden,
		func(dec *api.Decision) string { return names(dec.GetFailed()) }, "a customer may read their own account")
}

func (d *demo) callExpired(ctx context.Context) row {
	token, err := d.world.tokens.token(-5 * time.Minute)
	if err != nil {
		return row{what: "web → /account, expired token", seen: err.Error()}
	}
	return d.denied(ctx, "web → /account, expired token", "web", "/account", token, http.StatusUnauthorized,
		func(dec *api.Decision) string { return dec.GetToken().GetError() }, "expired")
}

// denied makes a call that must be denied and asks the server why, by the id
// in the answer, as `signet explain` does.
func (d *demo) denied(ctx context.Context, what, from, path, token string, status int, why func(*api.Decision) string, contains string) row {
	r := row{what: what, expected: fmt.Sprintf("%d denied: policy", status)}
	a := d.call(ctx, from, path, token)
	r.seen = a.String()
	explained, err := d.admin.Explain(ctx, &api.ExplainRequest{Id: a.DecisionID})
	if err != nil {
		r.more = []string{"explain: " + err.Error()}
		return r
	}
	dec := explained.GetDecision()
	r.ok = a.Status == status && a.Denied == "policy" && strings.Contains(why(dec), contains) &&
		(token != "" || dec.GetCommit() == d.world.Commit)
	r.more = append(r.more, "signet explain "+a.DecisionID, dec.GetMessage())
	for _, rule := range append(dec.GetRules(), dec.GetFailed()...) {
		r.more = append(r.more, "rule "+strconv.Quote(rule.GetName())+ruleAt(rule))
	}
	if dec.GetCommit() != "" {
		r.more = append(r.more, "commit "+dec.GetCommit())
	}
	return r
}

// ruleAt reports where a rule stands and what stopped it; Signet's own rules have no file.
func ruleAt(rule *api.Rule) string {
	if rule.GetFile() == "" {
		return ""
	}
	at := fmt.Sprintf(" at %s:%d", rule.GetFile(), rule.GetLine())
	if rule.GetExpression() != "" {
		at += fmt.Sprintf(", stopped at line %d: %s", rule.GetExpressionLine(), rule.GetExpression())
	}
	return at
}

func names(rules []*api.Rule) string {
	var out []string
	for _, r := range rules {
		out = append(out, r.GetName())
	}
	return strings.Join(out, ", ")
}

func (d *demo) callWithToken(ctx context.Context) row {
	token, err := d.world.tokens.token(5 * time.Minute)
	if err != nil {
		return row{what: "web → /account, valid token", seen: err.Error()}
	}
	a := d.call(ctx, "web", "/account", token)
	return row{what: "web → /account, valid token", expected: "200", seen: a.String(), ok: a.Status == 200}
}

func (d *demo) callWeighted(ctx context.Context) row {
	const calls = 200
	seen := map[string]int{}
	for range calls {
		if a := d.call(ctx, "web", "/orders", ""); a.Status == 200 {
			seen[a.Greeting.Service]++
		}
	}
	v1, v2 := seen["orders-v1"], seen["orders-v2"]
	// 20 are expected; fewer than 4 or more than 40 happens once in 100,000 runs.
	return row{
		what:     fmt.Sprintf("web → /orders, %d times", calls),
		expected: "all answered, about 10 % by orders-v2",
		seen:     fmt.Sprintf("orders-v1 %d, orders-v2 %d", v1, v2),
		ok:       v1+v2 == calls && v2 >= 4 && v2 <= 40,
	}
}

// callRotated makes one call, waits until web's certificate was renewed, and
// calls again: the server's proxy must see another certificate, and the list
// of certificates another serial.
func (d *demo) callRotated(ctx context.Context) row {
	r := row{what: "web → /orders after rotation", expected: "another serial, another certificate seen"}
	before, err := d.serial(ctx, nodeID("web"))
	first := d.call(ctx, "web", "/orders", "")
	if err != nil || first.Status != 200 {
		r.seen = fmt.Sprintf("%s (%v)", first, err)
		return r
	}
	deadline := time.Now().Add(2*d.cfg.SVIDLifetime + 5*time.Second)
	var after string
	var second answer
	for time.Now().Before(deadline) && ctx.Err() == nil {
		if after, err = d.serial(ctx, nodeID("web")); err == nil && after != before {
			second = d.call(ctx, "web", "/orders", "")
			if second.Status == 200 && second.Greeting.CallerCertificate != first.Greeting.CallerCertificate {
				break
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	r.ok = second.Status == 200 && after != before && second.Greeting.CallerCertificate != first.Greeting.CallerCertificate
	r.seen = fmt.Sprintf("serial %s… then %s…", head(before), head(after))
	r.more = []string{
		"serial " + before + ", certificate seen " + head(first.Greeting.CallerCertificate),
		"serial " + after + ", certificate seen " + head(second.Greeting.CallerCertificate),
	}
	return r
}

func head(s string) string { return s[:min(len(s), 12)] }

// serial that the proxy of an identity holds now.
func (d *demo) serial(ctx context.Context, id string) (string, error) {
	stream, err := d.admin.Certs(ctx, &api.CertsRequest{})
	if err != nil {
		return "", err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return "", fmt.Errorf("certificate of %s: %w", id, err)
		}
		for _, c := range answer.GetCerts() {
			if c.GetSpiffeId() == id && c.GetConsumer() == api.SVIDStatus_PROXY {
				return c.GetSerial(), nil
			}
		}
	}
}
