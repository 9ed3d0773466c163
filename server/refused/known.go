package refused

import "signet.example/ads"

// Known is what proxies of a virtual node have, or are to have, at one moment: looked up once,
// however much is said of it.
type Known struct {
	of    func(*ads.Resource) Resource
	forms map[*ads.Resource]Resource
	all   map[version]Resource // what Envoy can refuse, in each version
	taken map[taken]bool
}

// version is one of a resource, as agents speak of it.
type version struct{ typeURL, name, version string }

// taken is a resource that proxies with a version of Envoy have taken: it is nothing that no Envoy
// takes, and must not be taken away from those who run it.
type taken struct {
	envoy string
	at    Resource
}

// NewKnown has nothing yet. form is what Envoy can have reasons to refuse of a resource.
func NewKnown(form func(*ads.Resource) Resource) *Known {
	return &Known{form, map[*ads.Resource]Resource{}, map[version]Resource{}, map[taken]bool{}}
}

// Offer adds a set that proxies have or are to have.
func (k *Known) Offer(set *ads.Set) {
	k.each(set, func(r *ads.Resource, at Resource) { k.all[version{r.Type, r.Name, r.Version}] = at })
}

// Take adds a set that proxies with a version of Envoy have taken.
func (k *Known) Take(envoy string, set *ads.Set) {
	k.each(set, func(_ *ads.Resource, at Resource) { k.taken[taken{envoy, at}] = true })
}

// Offered reports whether there is a version of a resource.
func (k *Known) Offered(typeURL, name, of string) bool {
	_, ok := k.all[version{typeURL, name, of}]
	return ok
}

// Refusable is what is refused of a version of a resource: false where none is offered, and where
// proxies with that version of Envoy have taken it.
func (k *Known) Refusable(typeURL, name, of, envoy string) (at Resource, ok bool) {
	at, ok = k.all[version{typeURL, name, of}]
	return at, ok && !k.taken[taken{envoy, at}]
}

func (k *Known) each(set *ads.Set, do func(*ads.Resource, Resource)) {
	for _, t := range set.Types() {
		if !ads.Refusable(t) {
			continue
		}
		for _, r := range set.Type(t) {
			do(r, k.Form(r))
		}
	}
}

// Form is what Envoy can have reasons to refuse of a resource.
func (k *Known) Form(r *ads.Resource) Resource {
	at, ok := k.forms[r]
	if !ok {
		at = k.of(r)
		k.forms[r] = at
	}
	return at
}
