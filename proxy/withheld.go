package proxy

// UnsafeAnnotation, on a Mesh, lists by name what its proxies let through
// although it is unsafe, for applications that need it: "method-headers,
// query-semicolons". It is the key of the same in the metadata of routes, too.
const UnsafeAnnotation = "signet.example/unsafe"

// What a mesh may let through. What each is, proxies do about it, and why, is
// the table of docs/POLICY.md.
const (
	UnsafePathHeaders     = "path-headers"
	UnsafeMethodHeaders   = "method-headers"
	UnsafeHostHeaders     = "host-headers"
	UnsafeAddressHeaders  = "address-headers"
	UnsafeUserHeaders     = "user-headers"
	UnsafeQuerySemicolons = "query-semicolons"
	UnsafeRepeatAnyMethod = "repeat-any-method"
)

// Withheld are headers by which frameworks let a request say that it is another
// than it is. A policy decides on the method, path, host and peer that are there;
// so no application gets these from a caller, unless its mesh lets a kind of
// them through by name (decision 025). Policies do not see them either.
//
// X-Forwarded-For and X-Forwarded-Proto are not among them: Envoy appends the
// peer's address to the one, and sets the other to the truth.
type Withheld struct {
	// Unsafe is the name by which a mesh lets them through.
	Unsafe  string
	Headers []string
}

// WithheldHeaders is the default of every mesh.
func WithheldHeaders() []Withheld {
	return []Withheld{
		{UnsafePathHeaders, []string{"x-original-url", "x-rewrite-url", "x-original-uri", "x-original-path", "x-forwarded-uri", "x-forwarded-path", "x-forwarded-prefix"}},
		{UnsafeMethodHeaders, []string{"x-http-method-override", "x-http-method", "x-method-override", "x-original-method", "x-forwarded-method"}},
		{UnsafeHostHeaders, []string{
			"forwarded", "x-forwarded-host", "x-forwarded-server", "x-forwarded-port", "x-forwarded-scheme", "x-forwarded-protocol", "x-forwarded-ssl",
			"x-host", "x-original-host", "x-http-host-override", "x-url-scheme", "front-end-https",
		}},
		{UnsafeAddressHeaders, []string{
			"x-real-ip", "x-client-ip", "client-ip", "true-client-ip", "x-cluster-client-ip", "x-originating-ip", "x-remote-ip", "x-remote-addr",
			"cf-connecting-ip", "fastly-client-ip", "x-original-forwarded-for",
		}},
	}
}

// UserHeaders begin the names of headers by which a load balancer says who its user is, or its
// client by a certificate. From whom they are taken an agent decides, since that depends on who
// calls (docs/decisions/094).
func UserHeaders() []string { return []string{"x-amzn-oidc-", "x-amzn-mtls-"} }
