package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
)

// refused are the builtins that a policy cannot call, with the reason that the
// compiler's error gives: they reach outside of the evaluation (network, files by
// a schema's $ref, the process), make a decision that cannot be repeated from its
// record, sign, or take more time or memory than the size of their operands bounds.
// Capabilities are the fence, not UnsafeBuiltins: CVE-2022-36085 got round those by
// `with`. What stays is bounded by Fence.
var refused = sync.OnceValue(func() map[string]string {
	const (
		network   = "it uses the network"
		outside   = "it reads what is not in the request"
		random    = "a decision by chance cannot be repeated from its record"
		unbounded = "its cost is not bounded by the size of its operands"
		body      = unbounded + ", and a policy sees no body"
		signs     = "policies do not sign"
	)
	all := map[string]string{
		"http.send": network, "net.lookup_ip_addr": network,
		"opa.runtime": outside, "trace": outside, "rego.metadata.chain": outside, "rego.metadata.rule": outside,
		"json.match_schema": outside, "json.verify_schema": outside,
		"rand.intn": random, "uuid.rfc4122": random,
		"providers.aws.sign_req":  signs,
		"net.cidr_expand":         unbounded, // a /0 fills the memory
		"graph.reachable_paths":   unbounded, // as many paths as 2 to the number of nodes
		"strings.render_template": unbounded, // loops, and %1000000d
		"rego.parse_module":       unbounded,
		"regex.globs_match":       unbounded,
	}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		switch {
		case strings.HasPrefix(b.Name, "graphql."):
			all[b.Name] = body
		case strings.HasPrefix(b.Name, "io.jwt.encode_"):
			all[b.Name] = signs
		}
	}
	return all
})

// Capabilities of the policies' Rego. time.now_ns stays: it returns the time of the request.
func Capabilities() *ast.Capabilities {
	c, no := ast.CapabilitiesForThisVersion(), refused()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		_, is := no[b.Name]
		return is
	})
	c.AllowNet = []string{} // the second fence: no host, where nil would mean any
	return c
}

// CheckCalls names the first refused builtin that a rule calls, and why it is
// refused: the compiler only says that it does not know the function.
func CheckCalls(r *ast.Rule) error {
	no := refused()
	var err error
	called := func(name string, loc *ast.Location) {
		if why, is := no[name]; is && err == nil {
			err = fmt.Errorf("builtin %s is not available to policies: %s", name, why)
			if loc != nil && loc.Row != r.Loc().Row {
				err = fmt.Errorf("builtin %s (line %d) is not available to policies: %s", name, loc.Row, why)
			}
		}
	}
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case ast.Call:
			called(x[0].String(), x[0].Loc())
		case *ast.Expr:
			if x.IsCall() {
				called(x.Operator().String(), x.Loc())
			}
		}
		return err != nil
	}).Walk(r)
	return err
}

// builtinNames are those that a policy may call, sorted.
func builtinNames() []string {
	names := map[string]bool{}
	for _, b := range Capabilities().Builtins {
		names[b.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}
