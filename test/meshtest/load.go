package meshtest

import (
	"net/url"

	"signet.example/test/envoytest"
)

// StartLoad sends perSecond GETs of rawURL as a node, through its proxy, in an
// open loop. One request in fifty opens a connection of its own.
func (w *World) StartLoad(node, rawURL string, perSecond int) *envoytest.Run {
	proxy := &url.URL{Scheme: "http", Host: w.Nodes[node].EgressAddress()}
	return envoytest.Load{URL: rawURL, Rate: perSecond, NewConnections: 0.02, Proxy: proxy}.Start(w.T.Context())
}
