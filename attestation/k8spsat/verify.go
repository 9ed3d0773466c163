package k8spsat

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"signet.example/attestation/platform"
	"signet.example/identity"
)

// maxAge is how long after it was issued a token is taken, whatever it says itself: as long as
// the shortest that a kubelet asks for is good.
const maxAge = 10 * time.Minute

// accountSelector begins the one of a service account.
const accountSelector = Name + ":service_account:"

// claim is where a cluster says what is its own.
const claim = "kubernetes.io"

// Verifier checks evidence.
type Verifier struct {
	clusters map[string]Cluster // by issuer
	issuers  []platform.Issuer
	server   platform.Server
}

// pod is what a token says of the one that it is bound to.
type pod struct {
	cluster, namespace, account, name, uid, node string
}

// Verify checks a token for a trust domain, takes an agent of its service account's quota and
// uses it up. It returns the pod's selectors, and its key, which no other pod has. An error other
// than platform.ErrNotNow is the token's fault.
func (v *Verifier) Verify(ctx context.Context, token, trustDomain string, now time.Time) (sels identity.Selectors, key []byte, err error) {
	if err := platform.CheckToken(token); err != nil {
		return nil, nil, err
	}
	t, err := v.server.Tokens.Verify(v.issuers, token, audience(trustDomain), now)
	if err != nil {
		return nil, nil, err
	}
	p, err := v.judge(t, now)
	if err != nil {
		return nil, nil, err
	}
	sels, key = p.selectors(), platform.Hash(Name, t.Issuer, p.uid)
	// What is signed, and not the signature, which of ECDSA has two forms; not every cluster has a jti.
	id := platform.Hash(Name, "token", token[:strings.LastIndexByte(token, '.')])
	first, err := v.server.Use(ctx, Principal(sels.Strings()), sels.Strings(), key, id, now, t.Expires)
	switch {
	case err != nil:
		return nil, nil, err
	case !first: // the next one is good, and the kubelet writes it without being asked
		return nil, nil, fmt.Errorf("%w: one token is good for one join, and the kubelet writes another one at four fifths of its life; an agent whose data_dir is an emptyDir comes back without one", platform.ErrUsed)
	}
	return sels, key, nil
}

// judge looks at the claims of a token whose signature is good.
func (v *Verifier) judge(t platform.Token, now time.Time) (pod, error) {
	cluster, ok := v.clusters[t.Issuer]
	if !ok {
		return pod{}, errors.New("its issuer (iss) is that of no cluster in join." + Name + ".clusters")
	}
	p := podOf(cluster.Name, t.Claims)
	account := p.namespace + "/" + p.account
	switch {
	case len(t.Audience) != 1:
		return pod{}, errors.New("it is for more than one audience (aud)")
	case t.Issued.IsZero() || now.Sub(t.Issued) > maxAge:
		return pod{}, fmt.Errorf("it was issued (iat) more than %s ago: give the serviceAccountToken of the projected volume expirationSeconds: 600", maxAge)
	case !labelRE.MatchString(p.namespace) || !nameRE.MatchString(p.account):
		return pod{}, errors.New("it names no service account (" + claim + ")")
	case t.Subject != "system:serviceaccount:"+p.namespace+":"+p.account:
		return pod{}, errors.New("its subject (sub) is not the service account that it names (" + claim + ")")
	case !slices.Contains(cluster.ServiceAccounts, account):
		return pod{}, fmt.Errorf("its service account %s is not among those of cluster %s in join.%s.clusters", identity.Abbreviate(account), cluster.Name, Name)
	case !nameRE.MatchString(p.name) || !uidRE.MatchString(p.uid):
		return pod{}, errors.New("it is bound to no pod (" + claim + "): want that of a projected volume, not one of a Secret or of `kubectl create token`")
	}
	return p, nil
}

// podOf reads what a cluster says of a pod; what is not there, or no text, is "".
func podOf(cluster string, claims map[string]any) pod {
	own, _ := claims[claim].(map[string]any)
	of := func(what, field string) string {
		object, _ := own[what].(map[string]any)
		text, _ := object[field].(string)
		return text
	}
	p := pod{cluster: cluster, account: of("serviceaccount", "name"), name: of("pod", "name"), uid: of("pod", "uid"), node: of("node", "name")}
	p.namespace, _ = own["namespace"].(string)
	return p
}

// Selectors are the forms that a pod has, each with a check of the value. Each value names the
// cluster, so that none is another cluster's, too. All are the cluster's word.
var Selectors = map[string]func(string) error{
	"cluster":         checkForm("cluster", "prod"),
	"namespace":       checkForm("cluster/namespace", "prod/shop"),
	"service_account": checkForm("cluster/namespace/name", "prod/shop/web"),
	"pod":             checkForm("cluster/namespace/name", "prod/shop/web-5d4f8"),
	"pod_uid":         checkForm("cluster/uid", "prod/4f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"),
	"node":            checkForm("cluster/name", "prod/node-1"),
}

// checkForm accepts values with the parts of a form.
func checkForm(form, example string) func(string) error {
	names := strings.Split(form, "/")
	return func(s string) error {
		parts := strings.Split(s, "/")
		if len(parts) != len(names) || slices.ContainsFunc(names, func(n string) bool { return !formOf(n).MatchString(parts[slices.Index(names, n)]) }) {
			return fmt.Errorf("want %s, such as %s", form, example)
		}
		return nil
	}
}

// formOf is how a part of a selector's value is written.
func formOf(part string) *regexp.Regexp {
	switch part {
	case "cluster", "namespace":
		return labelRE
	case "uid":
		return uidRE
	}
	return nameRE
}

// Principal is who vouched for a pod with these selectors: the one of its service account.
func Principal(selectors []string) string {
	i := slices.IndexFunc(selectors, func(s string) bool { return strings.HasPrefix(s, accountSelector) })
	if i < 0 {
		return ""
	}
	return selectors[i]
}

// selectors leave out what no group can name.
func (p pod) selectors() identity.Selectors {
	space := p.cluster + "/" + p.namespace + "/"
	var sels identity.Selectors
	for _, s := range [][2]string{
		{"cluster", p.cluster},
		{"namespace", p.cluster + "/" + p.namespace},
		{"service_account", space + p.account},
		{"pod", space + p.name},
		{"pod_uid", p.cluster + "/" + p.uid},
		{"node", p.cluster + "/" + p.node},
	} {
		parsed, err := identity.ParseSelector(Name + ":" + s[0] + ":" + s[1])
		if err == nil && Selectors[s[0]](s[1]) == nil {
			sels = append(sels, parsed)
		}
	}
	return sels
}
