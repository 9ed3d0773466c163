package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// refused are the builtins that a policy cannot call: they reach outside of
// the evaluation (network, files by a schema's $ref, the process), or make a
// decision that cannot be repeated from its record, or sign. Capabilities are
// the fence, not UnsafeBuiltins: CVE-2022-36085 got round those by `with`.
var refused = []string{
	"http.send", "net.lookup_ip_addr",
	"net.cidr_expand", // a /0 fills the memory
	"opa.runtime", "trace", "rego.metadata.chain", "rego.metadata.rule",
	"rand.intn", "uuid.rfc4122",
	"json.match_schema", "json.verify_schema",
	"providers.aws.sign_req",
}

// capabilities of the policies' Rego. time.now_ns stays: it returns Input.Time.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		return slices.Contains(refused, b.Name) || strings.HasPrefix(b.Name, "io.jwt.encode_")
	})
	c.AllowNet = []string{} // the second fence: no host, where nil would mean any
	return c
}
