package mesh

import (
	"fmt"
	"strings"

	"signet.example/internal/manifest"
)

// Unfilled are the fields that name a host or a service of Cloud Map by a placeholder, such
// as $NAME, that nobody has given a value: no host has such a name. An apply of such an object
// is refused; one that is stored is served.
func Unfilled(r *Resource) manifest.Errors {
	s, ok := r.Spec.(*VirtualNodeSpec)
	if !ok || s.ServiceDiscovery == nil {
		return nil
	}
	var errs manifest.Errors
	check := func(path, text string) {
		if strings.ContainsAny(text, "${}") {
			errs = append(errs, r.fieldError("spec.serviceDiscovery."+path, fmt.Sprintf("%q is a placeholder without a value: signet import takes it by --set NAME=VALUE", text)))
		}
	}
	if d := s.ServiceDiscovery.DNS; d != nil {
		check("dns.hostname", d.Hostname)
	}
	if m := s.ServiceDiscovery.AWSCloudMap; m != nil {
		check("awsCloudMap.namespaceName", m.NamespaceName)
		check("awsCloudMap.serviceName", m.ServiceName)
	}
	return errs
}
