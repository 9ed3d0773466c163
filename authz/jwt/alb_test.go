package jwt_test

import (
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"signet.example/authz/jwt"
	"signet.example/test/alb"
)

func albSpec(change func(*jwt.ALBSpec)) jwt.ALBSpec {
	s := jwt.ALBSpec{Issuer: alb.Issuer, Clients: []string{alb.Client}, Signers: []string{alb.ARN}, Ingress: []string{"alb"}}
	if change != nil {
		change(&s)
	}
	return s
}

func TestALBIssuerIsBuiltFromItsSpec(t *testing.T) {
	is, err := albSpec(nil).Build("front")
	if err != nil || is.ALB == nil || is.ALB.KeysURL != "https://public-keys.auth.elb.eu-central-1.amazonaws.com" || is.Key() != "alb/front" {
		t.Errorf("%+v, %v", is, err)
	}
	if kind, name := jwt.KindOf(is.Key()); kind != "ALBIssuer" || name != "front" {
		t.Error(kind, name)
	}
	gov := "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188"
	if is, err = albSpec(func(s *jwt.ALBSpec) { s.Signers = []string{gov} }).Build("front"); err != nil || is.ALB.KeysURL != "https://s3-us-gov-west-1.amazonaws.com/aws-elb-public-keys-prod-us-gov-west-1" {
		t.Errorf("%+v, %v", is, err)
	}
	elsewhere := strings.Replace(alb.ARN, "eu-central-1", "us-east-1", 1)
	for path, change := range map[string]func(*jwt.ALBSpec){
		"spec.issuer":     func(s *jwt.ALBSpec) { s.Issuer = "" },
		"spec.clients":    func(s *jwt.ALBSpec) { s.Clients = nil },
		"spec.clients[1]": func(s *jwt.ALBSpec) { s.Clients = []string{"a", "a"} },
		"spec.signers":    func(s *jwt.ALBSpec) { s.Signers = []string{alb.ARN, elsewhere} },
		"spec.signers[0]": func(s *jwt.ALBSpec) { s.Signers = []string{strings.Replace(alb.ARN, "/app/", "/net/", 1)} },
		"spec.ingress":    func(s *jwt.ALBSpec) { s.Ingress = nil },
		"spec.callers[0]": func(s *jwt.ALBSpec) { s.Callers = []string{"front"} },
		"spec.keysURL":    func(s *jwt.ALBSpec) { s.Signers = []string{strings.Replace(alb.ARN, "arn:aws:", "arn:aws-cn:", 1)} },
	} {
		_, err := albSpec(change).Build("front")
		wantField(t, path, path, err)
	}
	for _, at := range []string{"http://keys.example", "https://keys.example/?x=", "file:///x", "https://u:p@keys.example"} {
		_, err := albSpec(func(s *jwt.ALBSpec) { s.KeysURL = at }).Build("front")
		wantField(t, at, "spec.keysURL", err)
	}
}

// trusting are the issuers of a spec with keys.
func trusting(t testing.TB, s jwt.ALBSpec, keys ...alb.Key) jwt.Issuers {
	t.Helper()
	is, err := s.Build("front")
	must(t, err)
	for _, k := range keys {
		is.JWKS, err = jwt.WithALBKey(is.JWKS, k.ID, k.PEM(t))
		must(t, err)
	}
	if len(keys) == 0 {
		is.JWKS = []byte(`{"keys":[]}`)
	}
	all, problems := jwt.NewIssuers([]jwt.Issuer{is})
	must(t, errors.Join(problems...))
	return all
}

var fromALB = jwt.From{Ingress: "alb"}

func TestALoadBalancersTokenIsVerifiedAsItIsSigned(t *testing.T) {
	const front = "spiffe://test.example/shop/front"
	k, until := alb.NewKey(t), time.Now().Add(2*time.Minute).Truncate(time.Second)
	all := trusting(t, albSpec(func(s *jwt.ALBSpec) { s.Callers = []string{front} }), k)
	if all.BearerTokens() {
		t.Error("bearer tokens are looked at where none has an issuer")
	}
	// Of different lengths, so that each part has each padding.
	for _, sub := range []string{"a", "an", "ana"} {
		c, err := jwt.ParseALB(k.Sign(t, k.Header(until), alb.Claims(sub, until)))
		must(t, err)
		token, err := all.VerifyALB(c, fromALB)
		if err != nil || token.Subject != sub || token.Issuer != alb.Issuer || !token.Expiry.Equal(until) || token.Claims["signer"] != alb.ARN || token.Claims["client"] != alb.Client {
			t.Errorf("%+v, %v", token, err)
			continue
		}
		if err := token.CheckTime(time.Now()); err != nil {
			t.Error(err)
		}
		if _, err := all.VerifyALB(c, jwt.From{ID: front}); err != nil {
			t.Errorf("passed on: %v", err)
		}
		for _, from := range []jwt.From{{}, {Ingress: "other"}, {ID: "spiffe://test.example/shop/batch"}} {
			if _, err := all.VerifyALB(c, from); all.TakesALB(from) || err == nil {
				t.Errorf("%+v may bring it", from)
			}
		}
	}
}

func TestWhatALoadBalancerDidNotSignSoIsRefused(t *testing.T) {
	k, other, until := alb.NewKey(t), alb.NewKey(t), time.Now().Add(2*time.Minute)
	all := trusting(t, albSpec(nil), k)
	header := func(name string, value any) string {
		h := k.Header(until)
		if h[name] = value; value == nil {
			delete(h, name)
		}
		return k.Sign(t, h, alb.Claims("ana", until))
	}
	claims := func(name string, value any) string {
		c := alb.Claims("ana", until)
		c[name] = value
		return k.Sign(t, k.Header(until), c)
	}
	good := k.Sign(t, k.Header(until), alb.Claims("ana", until))
	forged := other
	forged.ID = k.ID
	for what, c := range map[string]struct{ text, want string }{
		"without padding":            {strings.ReplaceAll(good, "=", ""), "with padding"},
		"four parts":                 {good + ".", "three parts"},
		"a line in it":               {good[:10] + "\n" + good[10:], "three parts"},
		"other bits behind":          {good[:len(good)-3] + string(after(good[len(good)-3])) + "==", "with padding"},
		"larger":                     {claims("x", strings.Repeat("x", 13<<10)), "too large"},
		"another's signature":        {forged.Token(t, "ana"), "signature is wrong"},
		"another algorithm":          {header("alg", "RS256"), "not ES256"},
		"no algorithm":               {header("alg", "none"), "not ES256"},
		"a path as kid":              {header("kid", "../../secret"), "not a UUID"},
		"a kid with a line":          {header("kid", k.ID+"\n"), "not a UUID"},
		"no kid":                     {header("kid", nil), "not a UUID"},
		"another load balancer":      {header("signer", strings.Replace(alb.ARN, "front", "attacker", 1)), "signer"},
		"no load balancer":           {header("signer", nil), "signer"},
		"another issuer":             {header("iss", "https://attacker.example"), "iss"},
		"another client":             {header("client", "other"), "client"},
		"no end":                     {header("exp", nil), "no expiry"},
		"no time":                    {header("exp", "soon"), "not a time"},
		"crit":                       {header("crit", []string{"exp"}), "crit"},
		"another type":               {header("typ", "at+thing"), "typ"},
		"another issuer's claims":    {claims("iss", "https://attacker.example"), "another issuer"},
		"a sub that is none":         {claims("sub", 7), "not a text"},
		"a kid that is not here yet": {other.Sign(t, other.Header(until), alb.Claims("ana", until)), "not here yet"},
	} {
		parsed, err := jwt.ParseALB(c.text)
		if err == nil {
			_, err = all.VerifyALB(parsed, fromALB)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
		if unknown := new(jwt.UnknownKeyError); errors.As(err, &unknown) && (unknown.KeyID != other.ID || unknown.Issuer != "alb/front") {
			t.Errorf("%s: %+v", what, unknown)
		}
	}
}

// The end of either part holds, whichever is earlier.
func TestALoadBalancersTokenEndsWithTheEarlierOfItsTimes(t *testing.T) {
	k, now := alb.NewKey(t), time.Now().Truncate(time.Second)
	all := trusting(t, albSpec(nil), k)
	for _, c := range []struct{ header, claims time.Duration }{{time.Minute, time.Hour}, {time.Hour, time.Minute}} {
		parsed, err := jwt.ParseALB(k.Sign(t, k.Header(now.Add(c.header)), alb.Claims("ana", now.Add(c.claims))))
		must(t, err)
		if token, err := all.VerifyALB(parsed, fromALB); err != nil || !token.Expiry.Equal(now.Add(time.Minute)) {
			t.Errorf("%+v: %+v, %v", c, token, err)
		}
	}
	// Claims without an end have that of the header.
	claims := alb.Claims("ana", now)
	delete(claims, "exp")
	delete(claims, "iss")
	parsed, err := jwt.ParseALB(k.Sign(t, k.Header(now.Add(time.Minute)), claims))
	must(t, err)
	if token, err := all.VerifyALB(parsed, fromALB); err != nil || !token.Expiry.Equal(now.Add(time.Minute)) || token.Claims["iss"] != alb.Issuer {
		t.Errorf("%+v, %v", token, err)
	}
}

// What is remembered of one kind of token is never found for the other.
func TestATokenIsKnownByItsForm(t *testing.T) {
	text := alb.NewKey(t).Token(t, "ana")
	padded, err := jwt.ParseALB(text)
	must(t, err)
	bare, err := jwt.Parse(strings.ReplaceAll(text, "=", ""))
	must(t, err)
	if padded.Digest() == bare.Digest() {
		t.Error("a token without its padding is the same one")
	}
}

func TestKeysOfALoadBalancerAreKeptByTheirIDs(t *testing.T) {
	k, rsa := alb.NewKey(t), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
	for what, c := range map[string]struct{ id, text string }{
		"no PEM": {k.ID, "x"}, "two keys": {k.ID, string(k.PEM(t)) + string(k.PEM(t))}, "no key": {k.ID, rsa}, "a path": {"../x", string(k.PEM(t))},
		"a private key": {k.ID, strings.ReplaceAll(string(k.PEM(t)), "PUBLIC", "PRIVATE")},
	} {
		if set, err := jwt.WithALBKey(nil, c.id, []byte(c.text)); err == nil {
			t.Errorf("%s: %s", what, set)
		}
	}
	var set []byte
	var ids []string
	for range 70 {
		another := alb.NewKey(t)
		ids = append(ids, another.ID)
		var err error
		set, err = jwt.WithALBKey(set, another.ID, another.PEM(t))
		must(t, err)
	}
	must(t, jwt.CheckKeys(set))
	if got := jwt.ALBKeyIDs(set); !slices.Equal(got, ids[len(ids)-64:]) {
		t.Errorf("%d keys are kept", len(got))
	}
	set, err := jwt.WithoutALBKey(set, ids[69])
	if err != nil || slices.Contains(jwt.ALBKeyIDs(set), ids[69]) || len(jwt.ALBKeyIDs(set)) != 63 {
		t.Errorf("%v", err)
	}
}

func FuzzALBToken(f *testing.F) {
	k, until := alb.NewKey(f), time.Now().Add(time.Hour)
	all := trusting(f, albSpec(nil), k)
	valid := k.Sign(f, k.Header(until), alb.Claims("ana", until))
	parts := strings.Split(valid, ".")
	f.Add(valid)
	for _, header := range []map[string]any{{"alg": "ES256"}, {"kid": "x", "exp": "1"}, having(k.Header(until), "kid", alb.NewKey(f).ID), having(k.Header(until), "signer", []string{alb.ARN})} {
		f.Add(k.Sign(f, header, alb.Claims("ana", until)))
	}
	f.Add(base64.URLEncoding.EncodeToString([]byte(`{"alg":"ES256","alg":"none"}`)) + "." + parts[1] + "." + parts[2])
	f.Fuzz(func(t *testing.T, text string) {
		c, err := jwt.ParseALB(text)
		if err != nil {
			return
		}
		token, err := all.VerifyALB(c, fromALB)
		var unknown *jwt.UnknownKeyError
		switch {
		case err == nil && !strings.HasPrefix(text, parts[0]+"."+parts[1]+"."):
			t.Fatalf("taken: %+v", token)
		case errors.As(err, &unknown) && !jwt.IsALBKeyID(unknown.KeyID):
			t.Fatalf("asked for %q", unknown.KeyID)
		}
	})
}

func having(m map[string]any, name string, value any) map[string]any {
	m = maps.Clone(m)
	m[name] = value
	return m
}

// after is the next letter of base64url.
func after(c byte) byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return letters[(strings.IndexByte(letters, c)+1)%len(letters)]
}
