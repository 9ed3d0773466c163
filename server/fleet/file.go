package fleet

import (
	"log/slog"
	"slices"
	"time"

	"signet.example/server/shared"
)

// OpenFile is what is known where there is one server. The endpoints are in a file beside the
// store, so that a server that restarts serves what it served until the agents are back: to
// withdraw a healthy endpoint because the control plane restarted would be an outage made by
// us. All of them count as gone from now: an agent has the grace period to come back and say
// it again. With an error nothing is registered.
func OpenFile(path string, clock func() time.Time, log *slog.Logger) (*shared.File[*Known], error) {
	return shared.OpenFile(path, shared.Form[*Known, []*Endpoint]{
		What: "endpoints",
		Read: func(list []*Endpoint) *Known {
			now := &Registered{}
			for _, n := range list {
				if n != nil {
					n.Gone = clock()
					now = now.put(n)
				}
			}
			return (&Known{}).withEndpoints(now)
		},
		Write: func(k *Known) []*Endpoint { return slices.AppendSeq([]*Endpoint{}, k.endpoints().all()) },
		Same:  func(a, b *Known) bool { return a.endpoints() == b.endpoints() },
	}, log)
}
