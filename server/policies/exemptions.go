package policies

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/policy"
)

// Observed are the identities of the virtual nodes and gateways whose denials are recorded
// and not made. One whose name makes no SPIFFE ID is not among them, which denies.
func Observed(g *mesh.Graph, td spiffeid.TrustDomain) []string {
	var out []string
	for _, m := range g.Meshes() {
		for _, n := range g.Nodes(m) {
			if id, err := identity.ForVirtualNode(td, m, n.Name); err == nil && n.Observed {
				out = append(out, id.String())
			}
		}
	}
	return out
}

// HealthExemption begins the name of each exemption of a health check.
const HealthExemption = "generated: health check "

// Exemptions are exemptions as they travel.
func Exemptions(list []policy.Exemption) []*api.Exemption {
	var out []*api.Exemption
	for _, e := range list {
		out = append(out, &api.Exemption{
			Name: e.Name, Destination: e.Destination, Method: e.Method, Path: e.Path, Port: e.Port, Sources: e.Sources, Ingress: e.Ingress,
		})
	}
	return out
}

// HealthExemptions returns an exemption for each declared health check: GET on
// its path, or the call of gRPC, at the port of its listener, from the identities that declare a backend which reaches the node,
// and from the load balancers of the listener.
// A node whose name makes no SPIFFE ID gets none, which denies.
func HealthExemptions(g *mesh.Graph, td spiffeid.TrustDomain) []policy.Exemption {
	var out []policy.Exemption
	for _, h := range g.HealthChecks() {
		destination, err := identity.ForVirtualNode(td, h.Node.Mesh, h.Node.Name)
		if err != nil {
			continue
		}
		e := policy.Exemption{
			Name:        fmt.Sprintf(HealthExemption+"%s of %s/%s at port %d", h.Path, h.Node.Mesh, h.Node.Name, h.Port),
			Destination: destination.String(),
			Method:      h.Method,
			Path:        h.Path,
			Port:        h.Port,
			Ingress:     h.Ingress,
		}
		if len(h.Ingress) > 0 {
			e.Name += " for ingress " + strings.Join(h.Ingress, ", ")
		}
		for _, caller := range h.Callers {
			if id, err := identity.ForVirtualNode(td, caller.Mesh, caller.Name); err == nil {
				e.Sources = append(e.Sources, id.String())
			}
		}
		if len(e.Sources)+len(e.Ingress) > 0 {
			out = append(out, e)
		}
	}
	return out
}
