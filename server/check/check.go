package check

import (
	"cmp"
	"slices"
	"strings"

	"signet.example/api"
)

// Findings are what is wrong, worst first: why, and the command that fixes it.
func Findings(l Look) []*api.Finding {
	list := slices.Concat(
		l.signer(), l.agents(), l.instances(), l.many(), l.groups(), l.reports(), l.endpoints(), l.policy(), l.packages(), l.issuers(), l.unmet(), l.cloudMap(), l.model(), l.log(), l.shapes(), l.routes(), l.awaited(),
	)
	slices.SortStableFunc(list, func(x, y *api.Finding) int {
		return cmp.Or(cmp.Compare(x.GetSeverity(), y.GetSeverity()), strings.Compare(x.GetId()+x.GetSubject(), y.GetId()+y.GetSubject()))
	})
	return list
}
