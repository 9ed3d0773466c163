package authz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode"

	"signet.example/authz"
)

func TestNoSecretIsInAnyRecordLogOrAnswer(t *testing.T) {
	var log bytes.Buffer
	f := newFixtureWith(t, ordersRego+`
deny contains "odd" if to_number(input.request.headers["x-odd"][0]) > 1

headers["x-copy"] := input.request.headers["x-copy"][0]
`, withJWT, func(o *authz.Options, _ *authz.Config) {
		o.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	valid := sign(keys()["rsa"], rs256, good().with("secret", "canary-claim").json())
	expired := sign(keys()["rsa"], rs256, good().with("exp", 1).json())
	forged := sign(keys()["other"], rs256, good().with("sub", "canary-sub").json())
	secrets := []string{"canary", valid, expired, forged}
	for _, tok := range []string{valid, expired, forged} {
		secrets = append(secrets, strings.Split(tok, ".")...)
	}
	var seen []string
	for _, tok := range []string{"Bearer " + valid, "Bearer " + expired, "Bearer " + forged, "Bearer canary.canary.canary", "Basic canary", "canary"} {
		for _, path := range []string{"/orders/1?token=canary", "/admin?canary", "/x/%2e?canary", "/x#canary", "canary"[:0] + "/orders/1"} {
			for _, extra := range []string{"x-a: b", "x-odd: canary", "x-copy: canary\tok", "bad name: canary", "x-bad: canary\xff"} {
				q := f.question("GET", path, web, "authorization: "+tok, "cookie: session=canary", "x-api-key: canary",
					"proxy-authorization: canary", "referer: http://h/?canary", extra)
				q.Attributes.Request.Http.Body = "canary"
				q.Attributes.Request.Http.RawBody = []byte("canary")
				resp, r := f.ask(t, q)
				b, err := json.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				if r.Allowed { // a header that the policy copies goes to the upstream, and nowhere else
					resp.GetOkResponse().Headers = nil
				}
				seen = append(seen, string(b), fmt.Sprintf("%+v", r), resp.String())
			}
		}
	}
	seen = append(seen, log.String())
	for _, s := range seen {
		for _, secret := range secrets {
			if secret != "" && strings.Contains(s, secret) && secret != strings.Split(valid, ".")[0] {
				t.Fatalf("%.30q… is in %s", secret, s)
			}
		}
	}
}

func TestARecordKeepsOnlyHeadersThatAreListed(t *testing.T) {
	f := newFixture(t)
	_, r := f.ask(t, f.question("GET", "/orders/1?q=1", web, "user-agent: curl/8", "accept: a", "accept: b", "x-request-id: 7", "x-other: o"))
	if len(r.Headers) != 3 || r.Headers["user-agent"] != "curl/8" || r.Headers["accept"] != "a, b" || r.Path != "/orders/1" || r.Host != "orders.shop" {
		t.Errorf("%+v", r)
	}
}

func TestControlCharactersOfRequestsAreEscapedInRecords(t *testing.T) {
	f := newFixture(t, withJWT)
	nasty := "a\x1b[31m\u2028\u202e\u200b\"\\b"
	tok := sign(keys()["rsa"], rs256, good().with("sub", nasty+"\r\n").json())
	q := f.question("GET", "/a\r\n\x1b]0;x\x07b", web, "user-agent: "+nasty, "authorization: Bearer "+tok)
	_, r := f.ask(t, q)
	_, r2 := f.ask(t, f.question("POST", "/x", web, "authorization: Bearer "+tok))
	_, r3 := f.ask(t, question("re\nv\x1b", "GET", "/x", web))
	for _, r := range []authz.Record{r, r2, r3} {
		text := []string{r.Path, r.Host, r.Method, r.Message, r.PolicyRevision}
		for _, v := range r.Headers {
			text = append(text, v)
		}
		if r.Token != nil {
			text = append(text, r.Token.Subject)
		}
		for _, s := range text {
			if strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
				t.Errorf("%q", s)
			}
		}
	}
	if r2.Token == nil || !strings.HasPrefix(r2.Token.Subject, `a\x1b[31m\u2028\u202e\u200b"\\b\r\n`) {
		t.Errorf("%+v", r2.Token)
	}
}

func TestEscapeIsShortAndWhole(t *testing.T) {
	for in, want := range map[string]string{"": "", "text": "text", "ab\xff": `ab\xff`, "héééé": "hé…", "a\x00\u0085": `a\x00\u0085`} {
		if got := authz.Escape(in, 4); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := authz.Escape(strings.Repeat("\x01", 1<<20), 100); len(got) > 500 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestARecordHasTheStatusOfARequestWhateverItsMethodAndNoneOfAConnection(t *testing.T) {
	f := newFixtureWith(t, connectionRego, func(_ *authz.Options, c *authz.Config) { c.Newest = c.Policies[0].Revision().ID })
	resp, r := f.ask(t, f.question("tcp", "/orders/1", other)) // HTTP/2 has any method
	if code := resp.GetDeniedResponse().GetStatus().GetCode(); code == 0 || int(r.Status) != int(code) {
		t.Errorf("a request that was answered %v: %+v", code, r)
	}
	for what, ctx := range map[string]context.Context{"decided": asked(t.Context()), "refused before it was looked at": t.Context()} {
		if _, err := f.Check(ctx, connection(6380, other)); err != nil {
			t.Fatal(err)
		}
		if r := f.last(); r.Allowed || r.Status != 0 {
			t.Errorf("a connection, %s: %+v", what, r)
		}
	}
}
