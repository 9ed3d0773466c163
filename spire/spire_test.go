package spire_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/server/kinds"
	"signet.example/spire"
)

func options() spire.Options { return spire.Options{APIVersion: mesh.SignetGroupVersion} }

func convert(t testing.TB, o spire.Options, files ...string) *spire.Report {
	t.Helper()
	var all []spire.Registration
	for _, name := range files {
		content, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		list, err := spire.Read(name, content)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	report, err := spire.Convert(all, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// understood fails where the server would not understand a manifest, and returns what it is.
func understood(t testing.TB, td, manifest string) any {
	t.Helper()
	domain, err := identity.ParseTrustDomain(td)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := mesh.Split("spire", []byte(manifest))
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d documents, %v:\n%s", len(docs), err, manifest)
	}
	o, err := kinds.Parse(docs[0], domain)
	if err != nil {
		t.Fatalf("%v:\n%s", err, manifest)
	}
	return o.Value
}

// What SPIRE prints, in both of its forms: what becomes of each registration, by name and reason.
func TestEachRegistrationBecomesAnEntryOrIsNamedWithItsReason(t *testing.T) {
	r := convert(t, options(), "show.json", "data.json")
	var got []string
	for _, x := range r.Objects {
		var fields []string
		for _, f := range slices.Concat(x.Why, x.Lost) {
			field, _, _ := strings.Cut(f, ":")
			fields = append(fields, field)
		}
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", x.State, x.Kind, x.Name, strings.Join(fields, " "))))
		if (x.Manifest == "") != (x.State == spire.Refused) {
			t.Errorf("%s is %s, and its manifest %q", x.Name, x.State, x.Manifest)
		}
	}
	want := []string{
		"refused NodeGroup blue selectors[1]",
		"whole NodeGroup hosts-web",
		"whole NodeGroup hosts-db",
		"whole NodeGroup join-token-33633193",
		"whole Entry ns-prod-sa-orders",
		"partial Entry ns-prod-sa-billing admin federates_with dns_names jwt_svid_ttl",
		"refused Entry guest expires_at",
		"whole Entry batch",
		"refused Entry one-agent parent_id",
		"refused Entry nested downstream",
		"refused Entry unheard store_svid selectors[0]",
		"refused Entry signet-agent-x spiffe_id x509_svid_ttl",
		"whole Entry db-b574d5e7",
		"whole Entry db-650417dc",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if whole, all := len(r.Written(false)), len(r.Written(true)); whole != 7 || all != 8 || r.Done() {
		t.Errorf("%d are written, %d with those that lack something; done: %v", whole, all, r.Done())
	}
	for _, x := range r.Written(true) {
		v := understood(t, "prod.example", x.Manifest)
		if e, ok := v.(identity.Entry); ok && e.ID.String() != x.SPIFFEID {
			t.Errorf("%s gives %s", x.SPIFFEID, e.ID)
		}
		if x.Name == "ns-prod-sa-orders" && (v.(identity.Entry).TTL.Hours() != 1 || v.(identity.Entry).Hint != "internal" || v.(identity.Entry).Group != "hosts-web") {
			t.Errorf("orders is %+v", v)
		}
		if strings.Contains(x.Manifest, "5a2f6c1e") || strings.Contains(x.SPIFFEID, "5a2f6c1e") {
			t.Errorf("a join token is repeated: %+v", x)
		}
	}
}

func TestAnotherTrustDomainAndGroupsByNameAreTaken(t *testing.T) {
	o := options()
	o.TrustDomain = "mesh.example"
	o.Groups = map[string]string{"spiffe://prod.example/spire/agent/x509pop/3f1c": "hosts", "spiffe://prod.example/blue": "blue-pods"}
	r := convert(t, o, "show.json")
	found := map[string]*spire.Object{}
	for _, x := range r.Objects {
		found[x.SPIFFEID] = x
	}
	one := found["spiffe://prod.example/one-agent"]
	if e, ok := understood(t, "mesh.example", one.Manifest).(identity.Entry); !ok || e.Group != "hosts" || e.ID.String() != "spiffe://mesh.example/one-agent" {
		t.Errorf("got %+v", e)
	}
	if blue := found["spiffe://prod.example/blue"]; blue.State != spire.Whole || blue.Name != "blue-pods" || blue.Manifest != "" {
		t.Errorf("a node alias whose group is named: %+v", blue)
	}
	for _, bad := range []spire.Options{{TrustDomain: "a b"}, {Groups: map[string]string{"spiffe://a/b": "no name"}}} {
		if _, err := spire.Convert(nil, bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// What is not what SPIRE prints is an error of the file, or of the one registration.
func TestWhatIsNotARegistrationIsRefusedWhereItStands(t *testing.T) {
	deep := strings.Repeat(`{"entries":[`, 20)
	for text, want := range map[string]string{ //nolint:gosec // a page of several is no credential
		``:                                     "ends too early",
		`[]`:                                   `want an object with "entries"`,
		`{}`:                                   `has no "entries"`,
		`{"entries":{}}`:                       "want a list",
		`{"entries":[7]}`:                      "want an object",
		`{"entries":[]} {}`:                    "something follows",
		`{"entries":[],"entries":[]}`:          "stands there twice",
		`{"entries":[],"next_page_token":"x"}`: "one page of several",
		`{"entries":[],"bundle":{}}`:           "is not of what",
		`{"entries":[{"hint":"\ud800"}]}`:      "half a character",
		"{\"entries\":[{\"hint\":\"\xff\"}]}":  "is not UTF-8",
		"{\n\"entries\":[\n{\"a\":tru}]}":      "f:3: is not JSON",
		deep:                                   "more than 16 deep",
	} {
		if list, err := spire.Read("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", text, list, err, want)
		}
	}
	const good = `"spiffe_id":"spiffe://a.example/web","parent_id":"spiffe://a.example/spire/agent/join_token/x","selectors":[{"type":"unix","value":"uid:1"}]`
	for member, want := range map[string]string{
		`"x509_svid_ttl":"1h"`:                "x509_svid_ttl: want a number",
		`"x509_svid_ttl":-1`:                  "x509_svid_ttl: want a number",
		`"x509_svid_ttl":9223372036854775807`: "out of bounds",
		`"admin":"true"`:                      "admin: want true or false",
		`"dns_names":"a"`:                     "dns_names: want a list",
		`"federates_with":[{}]`:               "federates_with: want a list",
		`"hint":7`:                            "hint: want a text",
		`"hint":"\u0007"`:                     "hint: ",
		`"spiffeId":"x"`:                      `"spiffeId": is not known`,
		`"additional_attributes":{"x":true}`:  `"additional_attributes.x": is not known`,
		`"additional_attributes":7`:           "is not known",
		`"id":{}`:                             "id: want a text",
		`"expires_at":"x"`:                    "expires_at: want a number",
		`"entryExpiry":1`:                     "expires_at: it ends 1970-01-01T00:00:01Z",
	} {
		list, err := spire.Read("f", []byte(`{"entries":[{`+good+`,`+member+`}]}`))
		if err != nil {
			t.Errorf("%s: %v", member, err)
			continue
		}
		r, err := spire.Convert(list, options())
		if err != nil {
			t.Fatal(err)
		}
		last := r.Objects[len(r.Objects)-1]
		if why := strings.Join(last.Why, "; "); last.State != spire.Refused || !strings.Contains(why, want) {
			t.Errorf("%s: %s, %q; want %q", member, last.State, why, want)
		}
	}
	for entry, want := range map[string]string{
		`"spiffe_id":{"trust_domain":"a.example/x","path":"/y"}`:                      "spiffe_id: want the name of a trust domain",
		`"spiffe_id":{"trust_domain":"a.example","path":"/y","z":"1"}`:                "is neither trust_domain nor path",
		`"spiffe_id":"spiffe://a.example"`:                                            "selectors: at least one selector",
		`"spiffe_id":"https://a.example/x"`:                                           "spiffe_id: ",
		`"spiffe_id":"spiffe://a.example/spire/agent/x"`:                              "one of SPIRE's own",
		`"spiffe_id":"spiffe://a.example/x","selectors":[{"type":"a:b","value":"c"}]`: "a type has no colon",
	} {
		list, err := spire.Read("f", []byte(`{"entries":[{`+entry+`},{`+good+`}]}`))
		if err != nil {
			t.Errorf("%s: %v", entry, err)
			continue
		}
		r, err := spire.Convert(list, options())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(r.Objects, func(x *spire.Object) bool {
			return x.State == spire.Refused && strings.Contains(strings.Join(x.Why, "; "), want)
		}) {
			t.Errorf("%s: want %q in %+v", entry, want, r.Objects[0].Why)
		}
	}
}

// Whatever is read: each registration has its place in the report, and what is written is what the
// server understands.
func FuzzConvert(f *testing.F) {
	for _, name := range []string{"show.json", "data.json"} {
		content, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte(`{"entries":[{"spiffe_id":"spiffe://a.example/web","parent_id":"spiffe://a.example/spire/server","selectors":[{"type":"x509pop","value":"subject:cn:a"}]}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		list, err := spire.Read("f", content)
		if err != nil {
			return
		}
		r, err := spire.Convert(list, options())
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Objects) < len(list) {
			t.Errorf("%d registrations, and %d in the report", len(list), len(r.Objects))
		}
		groups := map[string]bool{}
		for _, x := range r.Written(true) {
			id, err := identity.ParseID(x.SPIFFEID)
			td := "a.example"
			if err == nil {
				td = id.TrustDomain().Name()
			}
			if strings.HasPrefix(x.Name, "join-token-") && x.Kind == kinds.NodeGroup {
				groups[x.Name] = true
				understood(t, "a.example", x.Manifest)
				continue
			}
			switch v := understood(t, td, x.Manifest).(type) {
			case identity.NodeGroup:
				groups[v.Name] = true
			case identity.Entry:
				if v.ID.String() != x.SPIFFEID || !groups[v.Group] {
					t.Errorf("%s became %s of group %q, of %v", x.SPIFFEID, v.ID, v.Group, groups)
				}
			}
		}
	})
}
