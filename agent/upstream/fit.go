package upstream

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
)

// What a server takes of a report: 4 MiB, and lists of 1,024. How many views there are, and
// what is refused of them, is for proxies to say that the agent did not start, and how many
// files are missing for a mesh: with a report that is not taken the host would have no session.
const (
	mostListed   = 1000
	mostRejected = 512 << 10 // bytes of what proxies refused: of all views, again of all proxies, and again of what is left out of these
)

// fit cuts a report to that. Each view and each proxy has its share.
func fit(r *api.Report) {
	r.Views = r.Views[:min(len(r.Views), mostListed)]
	for _, v := range r.GetViews() {
		if few := fitting(v.GetRejected(), mostRejected/len(r.GetViews())); len(few) < len(v.GetRejected()) {
			v.Rejected, v.Version = few, "" // else what is left out would count as taken
		}
	}
	for _, p := range r.GetProxies() {
		p.Rejected = fitting(p.GetRejected(), mostRejected/len(r.GetProxies()))
		p.LeftOut = fitting(p.GetLeftOut(), mostRejected/len(r.GetProxies()))
	}
	if more := len(r.GetOwn()) - mostListed; more > 0 {
		text := fmt.Sprintf("%d more findings of this host are not told: see the agent's log", more+1)
		r.Own = append(r.Own[:mostListed-1], &api.AgentFinding{Kind: r.Own[mostListed-1].Kind, KindWord: r.Own[mostListed-1].GetKindWord(), Text: text})
	}
	if len(r.GetFindings()) > mostListed {
		r.Findings = r.Findings[:mostListed]
	}
}

// fitting are the first of a list that take no more bytes, and one in any case.
func fitting(list []*api.ResourceStatus, bytes int) []*api.ResourceStatus {
	for i, j := range list {
		if bytes -= proto.Size(j); i == mostListed || i > 0 && bytes < 0 {
			return list[:i]
		}
	}
	return list
}
