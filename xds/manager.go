package xds

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/proxy/answers"
)

// manager is an HTTP manager: most of a view, and nearly all nodes of a mesh have the same ones.
type manager struct {
	// Of the node, its mesh, and the proxy.
	mesh       string
	settings   mesh.Settings
	gateway    bool
	log        string
	logFormat  *mesh.LoggingFormat
	logDir     string
	answers    bool
	underscore bool
	life       lifetimes

	// Of the listener.
	way        answers.Way
	statPrefix string
	routes     string
	protocol   string
	callers    callers
}

// manager is one of a listener of the node.
func (b *builder) manager(way answers.Way, statPrefix, routes, protocol string, c callers) *listenerv3.Filter {
	return &listenerv3.Filter{Name: hcmFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.part(manager{
		mesh: b.node.Mesh, settings: b.read.settings(b.node.Mesh), gateway: b.node.Gateway != nil,
		log: b.node.AccessLog, logFormat: b.node.LogFormat, logDir: b.shape.AccessLogDir,
		answers: b.shape.Answers, underscore: b.shape.Underscores, life: b.life,
		way: way, statPrefix: statPrefix, routes: routes, protocol: protocol, callers: c,
	})}}
}

func (m manager) message(b *builder) proto.Message {
	b.life, b.node = m.life, &mesh.VirtualNode{Ref: proxy.Ref{Mesh: m.mesh}, AccessLog: m.log, LogFormat: m.logFormat}
	b.shape = proxy.Shape{AccessLogDir: m.logDir, Answers: m.answers, Underscores: m.underscore}
	if m.gateway {
		b.node.Gateway = &mesh.Gateway{}
	}
	if m.way == answers.Out {
		return b.egressHCM(m)
	}
	return b.ingressHCM(m)
}
