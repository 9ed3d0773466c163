package check

import (
	"slices"
	"strings"
	"time"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/server/groups"
	"signet.example/server/kinds"
)

// askAgain mends what keeps certificates from being issued.
const askAgain = "mend what the cause names, such as a full disk: agents ask again by themselves"

// signer looks at the signer and what it signs by.
func (l Look) signer() []*api.Finding {
	var list []*api.Finding
	restart := "signet server"
	if l.Signer.Separate {
		restart = "signet signer"
	} else {
		list = append(list, finding(findSignerUser, sevWarning, "signer", "signet signer --listen <socket> --server-user <user>, run as another user: docs/SIGNER.md",
			"the signer runs as the server's own user: whoever gets into the server can read the CA's keys"))
	}
	switch {
	case l.Signer.Gone != "":
		list = append(list, finding(findLogCut, sevError, "issuance log", l.Signer.Gone, "%s", l.Signer.Err))
	case l.Signer.NotKept:
		list = append(list, finding(findNotIssued, sevError, "issuance", askAgain, "%v", l.Signer.Err))
	case l.Signer.Err != nil:
		list = append(list, finding(findSigner, sevError, "signer", "look at its log and the server's, then restart `"+restart+"`", "the signer does not answer: %v", l.Signer.Err))
	case l.Signer.Failed != nil:
		list = append(list, finding(findNotIssued, sevError, "issuance", askAgain,
			"no certificate came of the last that were asked for, at %s: %s", plain.UTC(l.Signer.FailedAt), plain.Text(l.Signer.Failed.Error())))
	}
	from, until := l.Signer.NotBefore, l.Signer.NotAfter
	left := until.Sub(l.Now)
	if life := until.Sub(from); left < life/4 {
		list = append(list, finding(findIssuingCA, sevError, "issuing CA", "restart `"+restart+"`; the signer renews the issuing CA from the root at half of its life",
			"the issuing certificate ends in %s, at %s, and was not renewed", left.Round(time.Second), plain.UTC(until)))
	}
	return list
}

// model looks at what is stored.
func (l Look) model() []*api.Finding {
	var list []*api.Finding
	for _, name := range l.PostQuantum {
		if !slices.Contains(l.Stored.Graph().Meshes(), name) {
			list = append(list, finding(findPostQuantum, sevError, "require_post_quantum "+name, "signet get meshes; correct the name in the server's configuration and restart it",
				"there is no mesh of this name: what was meant accepts other key exchanges"))
		}
	}
	for _, o := range groups.Overlaps(l.Stored.Groups().Granted.All()) {
		list = append(list, finding(findAmbiguous, sevWarning, "Binding "+o.First.Name+" and Binding "+o.Second.Name,
			"add a selector to one that tells them apart, or: signet delete binding "+o.Second.Name, "%s", o))
	}
	for _, name := range groups.Unlisted(l.Stored.Groups().Granted.All()) {
		list = append(list, finding(findAmbiguous, sevWarning, "NodeGroup "+name, "correct the ones that are listed, and look again",
			"more of its objects do not go together than the %d pairs that are listed", groups.MostPairs))
	}
	return list
}

// log looks at what was recorded and came to nothing.
func (l Look) log() []*api.Finding {
	var list []*api.Finding
	for _, r := range l.Orphans {
		list = append(list, finding(findOrphan, sevInfo, "serial "+r.GetSerial(), "signet certs --all",
			"it was reserved for %s at %s and never answered: the signer or the server ended meanwhile", r.GetSpiffeId(), plain.UTC(r.GetTime().AsTime())))
	}
	return list
}

// shapes looks at what proxies listen on, log to and let through, their
// operators' own Envoys included.
func (l Look) shapes() []*api.Finding {
	var list []*api.Finding
	for _, p := range l.Open {
		list = append(list, finding(findOpenEgress, sevWarning, "proxy of "+p.Node.String(),
			"give egress (of proxies[] in the agent's configuration, or of signet.shape) a loopback address and leave egress_open out",
			"its outbound listener at %s is one that other hosts reach: who calls from there cannot be seen, and is let out only where its Binding has applications: [anyone], and then whoever reaches it calls as this virtual node", p.Shape.Egress))
	}
	graph := l.Stored.Graph()
	for _, name := range graph.Meshes() {
		if names := graph.UnsafeNames(name); len(names) > 0 {
			list = append(list, finding(findUnsafeMesh, sevWarning, "Mesh "+name, "take what no application needs out of its annotation "+proxy.UnsafeAnnotation+": docs/POLICY.md",
				"its proxies let through what is unsafe: %s", strings.Join(names, ", ")))
		}
		list = append(list, observed(graph, name)...)
		list = append(list, ingress(graph, name)...)
		list = append(list, unseen(graph, name)...)
	}
	for _, node := range l.Unlogged {
		list = append(list, finding(findAccessLog, sevWarning, "proxy of "+node.String(),
			"name its folder as access_log_dir in the agent's configuration, or log to /dev/stdout",
			"its access log is not written: %s is not in the folder that its agent names", plain.Text(l.Stored.Objects().Get(kinds.Node(node)).AccessLog())))
	}
	return list
}
