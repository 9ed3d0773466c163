package mesh

// What this version's xds translates; all else is refused by Unsupported, by
// field path. The author of xds builds against the same list.
//
//	Mesh              egressFilter; meshServiceDiscovery
//	VirtualNode       listeners of all protocols: portMapping, healthCheck on the listener's
//	                  port, timeout, connectionPool, outlierDetection, tls (mode; certificate acm, file, or sds named by a SPIFFE ID;
//	                  validation.trust file, or sds named by a trust domain ID; exact SPIFFE IDs as
//	                  subjectAlternativeNames, with trust file any that is none)
//	                  serviceDiscovery.dns, none, or awsCloudMap (docs/decisions/062)
//	                  backendGroups by name; backends, backendDefaults: client policy with certificate file or sds, trust acm,
//	                  file or sds, enforce, ports, exact SPIFFE IDs, with trust file any names
//	                  logging.accessLog.file, with the operators of logformat.go
//	BackendGroup      virtualservices
//	VirtualService    provider virtualNode, virtualRouter, none
//	VirtualRouter     listeners of all protocols; httpRoute, http2Route, grpcRoute, tcpRoute, all of
//	                  them except method CONNECT
//	VirtualGateway    listeners: portMapping, connectionPool of all or none, tls as a virtual node's, or without validation;
//	                  backendDefaults, logging.accessLog.file.path
//	GatewayRoute      all of it except method CONNECT

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/internal/manifest"
	"signet.example/proxy"
)

// Unsupported names what r asks for and this version does not translate, each
// by its field path and place. Whoever applies r must refuse it if there is any.
func Unsupported(r *Resource) manifest.Errors {
	u := &lacking{doc: r.Doc}
	r.Spec.(spec).lacks(u)
	u.errs.Sort()
	return u.errs
}

// lacking collects what is missing.
type lacking struct {
	doc  *manifest.Document
	errs manifest.Errors
}

func (u *lacking) add(path, msg string) {
	u.errs = append(u.errs, u.doc.FieldError(path, "not supported: "+msg))
}

func (u *lacking) when(lacks bool, path, msg string) {
	if lacks {
		u.add(path, msg)
	}
}

func (*MeshSpec) lacks(*lacking) {}

func (s *VirtualNodeSpec) lacks(u *lacking) {
	for i := range s.Listeners {
		u.listener(fmt.Sprintf("spec.listeners[%d]", i), &s.Listeners[i])
	}
	for i, g := range s.BackendGroups {
		u.when(g.Name == everyService, fmt.Sprintf("spec.backendGroups[%d].name", i), "every service of a namespace; name a BackendGroup that lists the services")
	}
	if s.BackendDefaults != nil {
		u.clientPolicy("spec.backendDefaults.clientPolicy", s.BackendDefaults.ClientPolicy)
	}
	for i := range s.Backends {
		u.clientPolicy(fmt.Sprintf("spec.backends[%d].virtualService.clientPolicy", i), s.Backends[i].VirtualService.ClientPolicy)
	}
	u.logging(s.Logging)
}

func (u *lacking) logging(l *Logging) {
	if l.File() != "" {
		u.logFormat("spec.logging.accessLog.file.format", l.AccessLog.File.Format)
	}
}

func (u *lacking) listener(path string, l *VirtualNodeListener) {
	if o := l.OutlierDetection; o != nil {
		u.when(o.Interval.Value == 0, path+".outlierDetection.interval.value", "an interval of 0; it must be more")
		u.when(o.BaseEjectionDuration.Value == 0, path+".outlierDetection.baseEjectionDuration.value", "an ejection of no time; it must be more than 0")
	}
	if h := l.HealthCheck; h != nil && h.Protocol == ProtocolGRPC {
		own := l.PortMapping.Protocol
		u.when(own != ProtocolGRPC && own != ProtocolHTTP2, path+".healthCheck.protocol", "a check by grpc of a listener of "+own+", since it is a call of grpc.health.v1; check by "+own+", or make the listener one of grpc or http2")
	}
	if h := l.HealthCheck; h != nil && l.PortMapping.Protocol == ProtocolTCP {
		u.when(h.Protocol != ProtocolTCP, path+".healthCheck.protocol", "a check by "+h.Protocol+" of a listener of tcp, which reads no requests; check by tcp")
	}
	u.listenerTLS(path+".tls", l.TLS)
}

func (u *lacking) listenerTLS(path string, t *ListenerTLS) {
	if t == nil {
		return
	}
	u.certificate(path, &t.Certificate)
	if v := t.Validation; v != nil {
		u.clients(path+".validation", v.Trust.File, v.Trust.SDS, v.SubjectAlternativeNames)
	}
}

// clients is what a listener demands of callers.
func (u *lacking) clients(validation string, file *TLSFileTrust, sds *TLSSDSTrust, names *SubjectAlternativeNames) {
	u.secretTrust(validation+".trust.sds.secretName", sds)
	at := validation + ".subjectAlternativeNames.match.exact"
	if file == nil {
		u.names(at, names)
		return
	}
	u.file(validation+".trust.file.certificateChain", file.CertificateChain)
	for i, name := range names.exact() {
		u.when(strings.HasPrefix(strings.ToLower(name), "spiffe:"), fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf(
			"%q; authorities of a file give no SPIFFE IDs to callers: trust sds (spiffe://<trust domain>) for callers of the mesh, or name DNS names", manifest.Clip(name)))
	}
}

// file is a path on the proxy's host.
func (u *lacking) file(path, name string) {
	if err := proxy.ValidTLSPath(name); err != nil {
		u.add(path, err.Error())
	}
}

func (u *lacking) certificate(tls string, c *ListenerTLSCertificate) {
	u.files(tls+".certificate.file", c.File)
	u.secretID(tls+".certificate.sds.secretName", c.SDS)
}

func (u *lacking) files(path string, c *TLSFileCertificate) {
	if c != nil {
		u.file(path+".certificateChain", c.CertificateChain)
		u.file(path+".privateKey", c.PrivateKey)
	}
}

func (u *lacking) clientPolicy(path string, p *ClientPolicy) {
	if p == nil || p.TLS == nil {
		return
	}
	t := p.TLS
	path += ".tls"
	if c := t.Certificate; c != nil {
		u.files(path+".certificate.file", c.File)
		u.secretID(path+".certificate.sds.secretName", c.SDS)
	}
	v := &t.Validation
	u.secretTrust(path+".validation.trust.sds.secretName", v.Trust.SDS)
	if v.Trust.File != nil { // whose names are theirs
		u.file(path+".validation.trust.file.certificateChain", v.Trust.File.CertificateChain)
		return
	}
	u.names(path+".validation.subjectAlternativeNames.match.exact", v.SubjectAlternativeNames)
}

// secretID: a certificate by SDS is an SVID, named by its SPIFFE ID.
func (u *lacking) secretID(path string, c *TLSSDSCertificate) {
	if c == nil {
		return
	}
	id, err := spiffeid.FromString(c.SecretName)
	u.when(err != nil || id.Path() == "", path, fmt.Sprintf("%q; only a SPIFFE ID names a certificate", manifest.Clip(c.SecretName)))
}

// secretTrust: a bundle by SDS is named by its trust domain's ID (SPIFFE-ID 2.4).
func (u *lacking) secretTrust(path string, t *TLSSDSTrust) {
	if t == nil {
		return
	}
	id, err := spiffeid.FromString(t.SecretName)
	u.when(err != nil || id.Path() != "", path, fmt.Sprintf("%q; only a trust domain's ID (spiffe://<trust domain>) names a bundle", manifest.Clip(t.SecretName)))
}

// names: certificates of a trust domain carry a SPIFFE ID and nothing else that could match.
func (u *lacking) names(path string, s *SubjectAlternativeNames) {
	for i, name := range s.exact() {
		id, err := spiffeid.FromString(name)
		u.when(err != nil || id.Path() == "", fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%q; only SPIFFE IDs are compared, unless trust is file: name spiffe://<trust domain>/<mesh>/<node>, or leave the names out", manifest.Clip(name)))
	}
}

func (s *VirtualRouterSpec) lacks(u *lacking) {
	for i := range s.Routes {
		path := fmt.Sprintf("spec.routes[%d]", i)
		r := &s.Routes[i]
		u.routeOfListener(path, s.Listeners, r)
		if r.HTTPRoute != nil {
			u.match(path+".httpRoute.match", &r.HTTPRoute.Match)
		}
		if r.HTTP2Route != nil {
			u.match(path+".http2Route.match", &r.HTTP2Route.Match)
		}
	}
}

// form is the name of the one that is there, and the port that it matches, 0 for each.
func (r *RouteSpec) form() (name string, port uint32) {
	switch {
	case r.HTTPRoute != nil:
		return "httpRoute", r.HTTPRoute.Match.Port
	case r.HTTP2Route != nil:
		return "http2Route", r.HTTP2Route.Match.Port
	case r.GRPCRoute != nil:
		return "grpcRoute", r.GRPCRoute.Match.Port
	case r.TCPRoute != nil && r.TCPRoute.Match != nil:
		return "tcpRoute", r.TCPRoute.Match.Port
	}
	return "tcpRoute", 0
}

// routeOfListener: bytes are not read as requests, and requests are not taken for bytes.
func (u *lacking) routeOfListener(path string, listeners []VirtualRouterListener, r *RouteSpec) {
	form, port := r.form()
	for _, l := range listeners {
		own := l.PortMapping.Protocol
		if (port == 0 || port == l.PortMapping.Port) && (own == ProtocolTCP) != (r.TCPRoute != nil) {
			u.add(path+"."+form, fmt.Sprintf("a %s at a listener of %s: connections of tcp are routed by a tcpRoute, and requests by no such route", form, own))
			return
		}
	}
}

func (s *VirtualGatewaySpec) lacks(u *lacking) {
	pools := 0
	for i := range s.Listeners {
		if s.Listeners[i].ConnectionPool != nil {
			pools++
		}
	}
	for i := range s.Listeners {
		l, path := &s.Listeners[i], fmt.Sprintf("spec.listeners[%d]", i)
		u.when(l.ConnectionPool != nil && pools < len(s.Listeners), path+".connectionPool",
			"a pool of some of a gateway's listeners, as all of them share its connections to services; give each listener one, or none")
		if t := l.TLS; t != nil {
			u.certificate(path+".tls", &t.Certificate)
			if v := t.Validation; v != nil {
				u.clients(path+".tls.validation", v.Trust.File, v.Trust.SDS, v.SubjectAlternativeNames)
			}
		}
	}
	if s.BackendDefaults != nil {
		u.clientPolicy("spec.backendDefaults.clientPolicy", s.BackendDefaults.ClientPolicy)
	}
	u.logging(s.Logging)
}

func (s *GatewayRouteSpec) lacks(u *lacking) {
	for path, r := range map[string]*HTTPGatewayRoute{"spec.httpRoute": s.HTTPRoute, "spec.http2Route": s.HTTP2Route} {
		if r == nil {
			continue
		}
		u.match(path+".match", &HTTPRouteMatch{Headers: r.Match.Headers, Method: r.Match.Method, Path: r.Match.Path, QueryParameters: r.Match.QueryParameters})
	}
}

func (u *lacking) match(path string, m *HTTPRouteMatch) {
	u.when(m.Method == "CONNECT", path+".method", "CONNECT, which no proxy of a mesh lets through")
	for i, q := range m.QueryParameters {
		// Of an empty value nothing is left that could be told from none.
		at := fmt.Sprintf("%s.queryParameters[%d].match", path, i)
		u.when(q.Match != nil && q.Match.Exact == "", at, "matching an empty value; leave match out for a parameter that is there")
	}
}
