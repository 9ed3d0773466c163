package mesh

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/proxy"
)

// Warnings names what r carries and gives back, what has no effect here, and what
// it lets through although it is unsafe.
func Warnings(r *Resource) manifest.Errors {
	w := &lacking{doc: r.Doc}
	warn := func(given bool, path, msg string) {
		if given {
			w.errs = append(w.errs, r.Doc.FieldError(path, "has no effect: "+msg))
		}
	}
	const gateways = "a GatewayRoute names its gateway by spec.virtualGatewayRef, or belongs to the only one"
	const selectors = "Signet knows workloads by their bindings, not by Kubernetes labels"
	switch s := r.Spec.(type) {
	case *MeshSpec:
		warn(s.NamespaceSelector != nil, "spec.namespaceSelector", "resources name their mesh by spec.meshRef, or belong to the only one")
		warn(s.MeshOwner != "", "spec.meshOwner", "there are no AWS accounts here")
		if s.EgressFilter != nil && s.EgressFilter.Type == EgressAllowAll {
			w.errs = append(w.errs, r.Doc.FieldError("spec.egressFilter.type",
				"ALLOW_ALL opens nothing in a proxy, unless what its application calls is redirected to it (capture of the agent's file): else applications reach other destinations by themselves, and through the proxy's way out declared backends alone"))
		}
		for _, name := range unsafeNames(r) {
			w.errs = append(w.errs, r.Doc.FieldError(annotationPath(proxy.UnsafeAnnotation), "unsafe: "+name+": "+unsafe[name]))
		}
	case *MeshOptionsSpec:
		w.observes(s.Authorization, "in mesh "+r.ObjectName)
	case *VirtualNodeOptionsSpec:
		w.observes(s.Authorization, "at this virtual node")
	case *VirtualGatewayOptionsSpec:
		w.observes(s.Authorization, "at this virtual gateway")
	case *VirtualNodeSpec:
		warn(s.PodSelector != nil, "spec.podSelector", selectors)
		if d := s.ServiceDiscovery; d != nil && d.AWSCloudMap != nil {
			w.errs = append(w.errs, r.Doc.FieldError("spec.serviceDiscovery.awsCloudMap", fmt.Sprintf(
				"AWS Cloud Map is asked for service %s of %s only where cloud_map of the server's configuration says so, and only as long as no agent registers an endpoint of this node",
				manifest.Clip(d.AWSCloudMap.ServiceName), manifest.Clip(d.AWSCloudMap.NamespaceName))))
		}
		for i := range s.Listeners {
			t, h := s.Listeners[i].TLS, s.Listeners[i].HealthCheck
			warn(t != nil && t.Certificate.ACM != nil, fmt.Sprintf("spec.listeners[%d].tls.certificate.acm.certificateARN", i), "the node presents its Signet SVID")
			if says := s.Listeners[i].PortMapping.speaksFirst(); says != "" {
				w.errs = append(w.errs, r.Doc.FieldError(fmt.Sprintf("spec.listeners[%d].portMapping.protocol", i), says))
			}
			warn(h != nil && h.Path != "" && (h.Protocol == "grpc" || h.Protocol == "tcp"), // the CRD's description
				fmt.Sprintf("spec.listeners[%d].healthCheck.path", i), "only http and http2 ask for a path")
		}
	case *GatewayRouteSpec:
		w.byUser(s.form())
	case *VirtualGatewaySpec:
		warn(s.PodSelector != nil, "spec.podSelector", selectors)
		warn(s.NamespaceSelector != nil, "spec.namespaceSelector", gateways)
		warn(s.GatewayRouteSelector != nil, "spec.gatewayRouteSelector", gateways)
		for i := range s.Listeners {
			t := s.Listeners[i].TLS
			warn(t != nil && t.Certificate.ACM != nil, fmt.Sprintf("spec.listeners[%d].tls.certificate.acm.certificateARN", i), "the gateway presents its Signet SVID, which browsers and other callers from outside do not trust")
			warn(s.Listeners[i].HealthCheck != nil, fmt.Sprintf("spec.listeners[%d].healthCheck", i), "no proxy of the mesh calls a gateway; a load balancer in front has a check of its own")
		}
	}
	for _, at := range logOf(r.Spec).format().secrets("spec.logging.accessLog.file.format") {
		w.errs = append(w.errs, r.Doc.FieldError(at, "unsafe: the log gets what callers prove themselves by; who reads it can speak for them"))
	}
	if _, ref := r.names(); ref != nil {
		warn(ref.UID != "", "spec.meshRef.uid", "a mesh is found by its name")
	}
	if r.Doc != nil {
		warn(r.Kind.Wide() && r.Doc.Namespace != "", "metadata.namespace", "a mesh is in no namespace, here as in Kubernetes")
		w.errs = append(w.errs, r.Doc.Ignored()...)
	}
	w.errs.Sort()
	return w.errs
}

func (w *lacking) observes(authorization, where string) {
	if authorization == AuthorizationObserve {
		w.errs = append(w.errs, w.doc.FieldError("spec.authorization", "observe: nothing that the policy denies is denied "+where+", only recorded: `signet decisions --denied` lists it"))
	}
}

// byUser warns of a gateway's route that is chosen by what a load balancer says of its user: it is
// chosen before the agent is asked, which takes that from whoever may not say it.
func (w *lacking) byUser(f gatewayRouteForm) {
	list := "headers"
	if f.match.GRPC {
		list = "metadata"
	}
	for i, h := range f.match.Headers {
		name := strings.ToLower(h.Name)
		if slices.ContainsFunc(proxy.UserHeaders(), func(begins string) bool { return strings.HasPrefix(name, begins) }) {
			w.errs = append(w.errs, w.doc.FieldError(fmt.Sprintf("%s.match.%s[%d].name", f.path, list, i),
				"unsafe: the route is chosen before "+name+" is taken from callers who may not say it: whoever calls the gateway chooses; have the policy decide by its user"))
		}
	}
}

// EnvelopeWarnings names what stands around the spec of one of Signet's own
// kinds and has no effect: of its metadata, all except the name.
func EnvelopeWarnings(d *manifest.Document) manifest.Errors {
	errs := d.Ignored()
	for _, name := range []string{"namespace", "labels", "annotations"} {
		if path := "metadata." + name; d.Has(path) {
			errs = append(errs, d.FieldError(path, "has no effect: an object of "+SignetGroupVersion+" has a name and nothing beside it"))
		}
	}
	errs.Sort()
	return errs
}

// speakFirst are ports on which the server commonly speaks first, and what it speaks.
var speakFirst = map[uint32]string{21: "FTP", 22: "SSH", 25: "SMTP", 110: "POP3", 143: "IMAP", 587: "SMTP", 3306: "MySQL", 5900: "VNC"}

// speaksFirst is what is to be said of a listener on such a port, "" of others.
func (m PortMapping) speaksFirst() string {
	name := speakFirst[m.Port]
	if m.Protocol != ProtocolTCP || name == "" {
		return ""
	}
	return "a connection is let by its client's first bytes, and nothing is opened before: if this is " + name +
		", in which the server speaks first, both wait until the connection is closed; let applications connect to it directly, not through the mesh"
}
