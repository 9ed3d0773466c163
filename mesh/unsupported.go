package mesh

// What this version's xds translates; all else is refused by Unsupported, by
// field path. The author of xds builds against the same list.
//
//	Mesh              egressFilter DROP_ALL; meshServiceDiscovery absent or IPv4_ONLY, IPv4_PREFERRED
//	VirtualNode       listeners of protocol http: portMapping, healthCheck (http, on the listener's
//	                  port), timeout.http, tls (mode; certificate acm, or sds named by a SPIFFE ID;
//	                  validation.trust sds named by a trust domain ID; exact SPIFFE IDs as
//	                  subjectAlternativeNames)
//	                  serviceDiscovery.dns, or none
//	                  backends, backendDefaults: client policy with certificate sds, trust acm or
//	                  sds, enforce absent or true, exact SPIFFE IDs
//	                  logging.accessLog.file.path
//	VirtualService    provider virtualNode, virtualRouter, none
//	VirtualRouter     one listener of protocol http; httpRoute with match.prefix or match.path.exact,
//	                  headers (exact, prefix, suffix, present, invert), match.port if it is the
//	                  listener's; weightedTargets with port; timeout; retryPolicy; priority
