package sds_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/sds"
)

func namesOf(set *ads.Set) (names []string) {
	for _, r := range set.Type(ads.SecretType) {
		names = append(names, r.Name)
	}
	return names
}

// D13: Envoy keeps a Secret that is removed.
func TestWhatAProcessHasNoMoreIsReplacedByWhatNobodyTrusts(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	web, api := ca.svid(t, "/shop/web"), ca.svid(t, "/shop/api")
	both := ca.bundles()
	both["spiffe://other.example"] = [][]byte{other.cert.Raw}
	var p sds.Plain
	next := func(u sds.Update) *ads.Set {
		t.Helper()
		set, err := p.Next(u, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	all := []string{"ALL", "ROOTCA", "default", "spiffe://other.example", "spiffe://test.example", "spiffe://test.example/shop/api", "spiffe://test.example/shop/web"}
	first := next(sds.Update{SVIDs: []sds.SVID{web, api}, Bundles: both})
	less := next(sds.Update{SVIDs: []sds.SVID{web}, Bundles: ca.bundles()})
	again := next(sds.Update{SVIDs: []sds.SVID{web}, Bundles: ca.bundles()})
	if !slices.Equal(namesOf(first), all) || !slices.Equal(namesOf(less), all) {
		t.Errorf("%v, then %v", namesOf(first), namesOf(less))
	}
	if less.Version() != again.Version() {
		t.Error("what is in the place of the others is another one each time")
	}
	version := func(set *ads.Set, name string) string { return set.Get(ads.SecretType, name).Version }
	for _, name := range all {
		gone := slices.Contains([]string{"ALL", "spiffe://other.example", "spiffe://test.example/shop/api"}, name)
		if changed := version(first, name) != version(less, name); changed != gone {
			t.Errorf("%s has changed: %t", name, changed)
		}
	}
	if back := next(sds.Update{SVIDs: []sds.SVID{web, api}, Bundles: both}); back.Version() != first.Version() {
		t.Error("what came back is not what it was")
	}
	nothing, err := p.Nothing(time.Now())
	if err != nil || !slices.Equal(namesOf(nothing), all) {
		t.Fatalf("%v, %v", namesOf(nothing), err)
	}
	for _, r := range nothing.Type(ads.SecretType) {
		if r.Version == version(first, r.Name) {
			t.Errorf("%s is still there", r.Name)
		}
	}
	if _, err := p.Next(sds.Update{Bundles: both}, time.Now()); !errors.Is(err, sds.ErrNoIdentity) {
		t.Errorf("without an identity: %v", err)
	}
	if _, err := new(sds.Plain).Next(sds.Update{SVIDs: []sds.SVID{web}}, time.Now()); !errors.Is(err, sds.ErrUnavailable) {
		t.Errorf("without a bundle: %v", err)
	}
}

func TestALLHasEachTrustDomainsAuthoritiesForItsOwnNames(t *testing.T) {
	ca := newAuthority(t)
	bundles := ca.bundles()
	bundles["spiffe://other.example"] = [][]byte{newAuthority(t).cert.Raw}
	set, err := new(sds.Plain).Next(sds.Update{SVIDs: []sds.SVID{ca.svid(t, "/shop/web")}, Bundles: bundles}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var secret tlsv3.Secret
	var config tlsv3.SPIFFECertValidatorConfig
	if err := errors.Join(proto.Unmarshal(set.Get(ads.SecretType, sds.NameAll).Body, &secret), secret.GetValidationContext().GetCustomValidatorConfig().GetTypedConfig().UnmarshalTo(&config)); err != nil {
		t.Fatal(err)
	}
	var domains []string
	for _, d := range config.GetTrustDomains() {
		domains = append(domains, d.GetName())
	}
	if !slices.Equal(domains, []string{"other.example", "test.example"}) || secret.GetValidationContext().GetTrustedCa() != nil {
		t.Errorf("it has %v", &secret)
	}
}
