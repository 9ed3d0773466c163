package fleet

import (
	"slices"
	"strings"

	"signet.example/api"
)

// Serves reports whether somebody may be served by the agent's proxies.
func (s Status) Serves() bool {
	return s.State == api.AgentInfo_CONNECTED || s.State == api.AgentInfo_AWAY
}

// Runs reports whether a proxy answers calls, also one to which no caller is sent.
func Runs(p *api.ProxyStatus) bool {
	return p.GetState() == api.ProxyStatus_READY || p.GetState() == api.ProxyStatus_UNSERVED
}

// Lacks is what a proxy does not have of the resources that count, of what those at its agent, which
// are all, refused: what it is not reported to have taken while another one refused it.
func Lacks(p *api.ProxyStatus, all []*api.ProxyStatus, rejected []*api.ResourceStatus, counts func(*api.ResourceStatus) bool) (list []*api.ResourceStatus) {
	same := func(a *api.ResourceStatus) func(*api.ResourceStatus) bool {
		return func(b *api.ResourceStatus) bool {
			return a.GetTypeUrl() == b.GetTypeUrl() && a.GetName() == b.GetName() && a.GetVersion() == b.GetVersion()
		}
	}
	for _, r := range slices.Concat(rejected, p.GetLeftOut()) {
		another := slices.ContainsFunc(all, func(o *api.ProxyStatus) bool { return slices.ContainsFunc(o.GetRejected(), same(r)) }) &&
			!slices.ContainsFunc(p.GetRejected(), same(r))
		if counts(r) && !another && !slices.ContainsFunc(list, same(r)) {
			list = append(list, r)
		}
	}
	return list
}

// Placeless is the name of a resource without what it has of where its proxy listens (xds).
func Placeless(name string) string {
	for _, out := range []string{"lds_egress_", "rds_egress_"} {
		if strings.HasPrefix(name, out) {
			return out
		}
	}
	if in := "lds_ingress_"; strings.HasPrefix(name, in) {
		return in + name[strings.LastIndexByte(name, '_'):]
	}
	return name
}
