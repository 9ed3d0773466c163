package policy

import "github.com/open-policy-agent/opa/v1/ast"

// libraries are Rego modules that every policy may import.
func libraries() []Module {
	return []Module{{Path: "signet/lib/http.rego", Rego: libraryHTTP}}
}

// IsLibrary reports whether a module would add to a library's package.
func IsLibrary(m *ast.Module) bool { return m.Package.Path.String() == "data.signet.lib.http" }

// libraryHTTP: a list-valued header may come as several lines or as one with
// commas (RFC 9110 5.3), and a rule that looks at one form only is bypassed by
// the other (CVE-2026-26308). values has both.
const libraryHTTP = `# METADATA
# description: headers as upstreams read them
package signet.lib.http

values(name) := {trim_space(part) |
	some line in object.get(input.request, ["headers", lower(name)], [])
	some part in split(line, ",")
}
`
