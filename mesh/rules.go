package mesh

import (
	"fmt"
	"regexp"

	"signet.example/internal/manifest"
	"signet.example/proxy"
)

// ruler checks what one field's rule cannot say: fields against each other
// (AM-crossfield).
type ruler struct {
	doc  *manifest.Document
	errs manifest.Errors
}

func (ru *ruler) fail(path, format string, args ...any) {
	if len(ru.errs) < manifest.MaxErrors {
		ru.errs = append(ru.errs, ru.doc.FieldError(path, fmt.Sprintf(format, args...)))
	}
}

func (ru *ruler) listener(path string, l *VirtualNodeListener) {
	protocol := l.PortMapping.Protocol
	if t := l.Timeout; t != nil {
		ru.sameProtocol(path+".timeout", protocol, protocolOf(t.GRPC != nil, t.HTTP != nil, t.HTTP2 != nil, t.TCP != nil))
	}
	if p := l.ConnectionPool; p != nil {
		ru.sameProtocol(path+".connectionPool", protocol, protocolOf(p.GRPC != nil, p.HTTP != nil, p.HTTP2 != nil, p.TCP != nil))
	}
	if h := l.HealthCheck; h != nil {
		ru.healthCheckPort(path, h.Port, l.PortMapping.Port)
	}
}

func (ru *ruler) healthCheckPort(listener string, port, own uint32) {
	if port != 0 && port != own {
		ru.fail(listener+".healthCheck.port", "%d is not the listener's port %d", port, own)
	}
}

func protocolOf(grpc, http, http2, tcp bool) string {
	switch {
	case grpc:
		return "grpc"
	case http:
		return "http"
	case http2:
		return "http2"
	case tcp:
		return "tcp"
	}
	return ""
}

func (ru *ruler) sameProtocol(path, listener, given string) {
	if given != "" && given != listener {
		ru.fail(path+"."+given, "the listener's protocol is %s", listener)
	}
}

// The resource types that an ARN of this service names, beside [proxy.VirtualNode].
const (
	arnVirtualRouter  proxy.Kind = "virtualRouter"
	arnVirtualService proxy.Kind = "virtualService"
)

// arnForm: partition, region and account are carried only, as there are none
// here; mesh, type and name are what counts (AM-arn).
var arnForm = regexp.MustCompile(`^arn:[a-z0-9-]+:appmesh:[a-z0-9-]*:[0-9]*:mesh/([^/]+)/([A-Za-z]+)/([^/]+)$`)

// parseARN has the kind as it stands in the ARN, whatever it is.
func parseARN(arn string) (proxy.Ref, bool) {
	m := arnForm.FindStringSubmatch(arn)
	if m == nil {
		return proxy.Ref{}, false
	}
	return proxy.Ref{Mesh: m[1], Kind: proxy.Kind(m[2]), Name: m[3]}, true
}

func (ru *ruler) arn(path, arn string, want proxy.Kind) {
	if arn == "" {
		return
	}
	if of, ok := parseARN(arn); !ok || of.Kind != want {
		ru.fail(path, "%q is not of the form arn:aws:appmesh:<region>:<account>:mesh/<mesh>/%s/<name>", manifest.Clip(arn), want)
	}
}
