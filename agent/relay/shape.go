package relay

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"signet.example/proxy"
)

// foreignShape is what a proxy which the agent did not start declares of itself,
// with what is not its own to say from ours. What the server would refuse is
// refused here: its refusal would reach the log and not the proxy. One that App Mesh's own
// agent started declares nothing, and is at what the operator of this host says.
func foreignShape(node *corev3.Node, ref proxy.Ref, ours proxy.Shape, at proxy.Where) (proxy.Shape, error) {
	settle := func(s *proxy.Shape) {
		s.Suit(ref)
		if s.EnvoyVersion == "" {
			s.EnvoyVersion = versionOf(node)
		}
		s.AuthzSocket, s.WayoutSocket, s.AccessLogDir, s.Proxy = ours.AuthzSocket, ours.WayoutSocket, ours.AccessLogDir, ""
		s.Underscores = ours.Underscores
	}
	if !proxy.OfAppMesh(node.GetMetadata()) {
		s, err := proxy.ParseShape(node.GetMetadata(), settle)
		if err == nil && s.Capture.Ingress != 0 {
			err = fmt.Errorf("%w: capture.ingress is for a proxy that the agent starts: another one is registered by the ports at which it is seen to listen", proxy.ErrShape)
		}
		return s, err
	}
	s, err := at.Shape(node.GetMetadata())
	if err != nil {
		return proxy.Shape{}, err
	}
	settle(&s)
	return s, s.Validate()
}

// versionOf is the version that Envoy says of itself, "" where it says none.
func versionOf(node *corev3.Node) string {
	v := node.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
}
