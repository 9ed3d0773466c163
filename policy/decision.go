package policy

import "net/http"

// WithoutPolicy is what holds where there is no policy, for messages.
const WithoutPolicy = "every call is denied except declared health checks"

// RuleRef names a rule and where it stands. Expression and ExpressionLine are
// set in Decision.Failed: the expression, as written, that stopped the rule.
type RuleRef struct {
	Name, File     string
	Line           int
	Expression     string
	ExpressionLine int
}

// Decision is the result of one evaluation.
type Decision struct {
	Allowed bool
	// Allow and Deny are the rules that held, sorted by name.
	Allow, Deny []RuleRef
	// Headers to set on the request that goes to the upstream; only when Allowed.
	Headers http.Header
	// Unset are the headers that the policy sets in some decisions and did not
	// set in this one: the client's own copies of them must not pass.
	Unset []string
	// Failed has, on a denial, each allow rule that did not hold.
	Failed []RuleRef
	// Untraced is why Failed is empty or incomplete on a denial, if it is, or lacks what
	// might be looked for: the rules of a package that is not this destination's.
	Untraced string
}
