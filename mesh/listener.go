package mesh

import (
	"cmp"
	"math"
	"time"
)

// Defaults that App Mesh applies without showing them.
const (
	// DefaultRequestTimeout holds on routes and on listeners (AM-timeouts).
	DefaultRequestTimeout = 15 * time.Second
	// DefaultIdleTimeout is the user guide's; the API document says "none"
	// (AM-timeouts). The bounded one is the safe one.
	DefaultIdleTimeout = 300 * time.Second
	// defaultProbePath holds where a check gives no path.
	defaultProbePath = "/"
)

func resolveListener(l *VirtualNodeListener) Listener {
	out := Listener{Port: l.PortMapping.Port, Protocol: l.PortMapping.Protocol, Probe: resolveProbe(l), TLS: resolveTLS(l.TLS)}
	var t *HTTPTimeout
	if l.Timeout != nil { // exactly one of them is there
		t = cmp.Or(l.Timeout.HTTP, l.Timeout.HTTP2, l.Timeout.GRPC)
	}
	out.Timeout = resolveTimeout(t)
	if out.Protocol == ProtocolTCP {
		var tcp *TCPTimeout
		if l.Timeout != nil {
			tcp = l.Timeout.TCP
		}
		out.Timeout = resolveTCPTimeout(tcp)
	}
	if l.ConnectionPool != nil {
		out.Pool = resolvePool(l.ConnectionPool)
	}
	if o := l.OutlierDetection; o != nil {
		out.Outliers = &Outliers{
			Errors: bound(o.MaxServerErrors), Interval: o.Interval.Std(), Base: o.BaseEjectionDuration.Std(), Percent: bound(o.MaxEjectionPercent),
		}
	}
	return out
}

// resolvePool: of the members exactly one is there.
func resolvePool(p *VirtualNodeConnectionPool) Pool {
	if h := p.HTTP; h != nil {
		return Pool{Connections: bound(h.MaxConnections), Pending: bound(h.MaxPendingRequests)}
	}
	if m := cmp.Or(p.HTTP2, p.GRPC); m != nil {
		return Pool{Requests: bound(m.MaxRequests)}
	}
	return Pool{Connections: bound(p.TCP.MaxConnections)}
}

// bound is a number as Envoy has it. App Mesh's own "no bound" is the largest.
func bound(n int64) uint32 {
	return uint32(min(n, math.MaxInt32)) //nolint:gosec // its check has it at 0 or more
}

// resolveTimeout: 0 switches a bound off, absence means the default.
func resolveTimeout(t *HTTPTimeout) Timeout {
	out := Timeout{PerRequest: DefaultRequestTimeout, Idle: DefaultIdleTimeout}
	if t != nil && t.PerRequest != nil {
		out.PerRequest = t.PerRequest.Std()
	}
	if t != nil && t.Idle != nil {
		out.Idle = t.Idle.Std()
	}
	return out
}

// DefaultTCPIdle is Envoy's own, which App Mesh left where a spec says nothing
// (AM-timeouts).
const DefaultTCPIdle = time.Hour

// resolveTCPTimeout: 0 switches the bound off, absence means the default.
func resolveTCPTimeout(t *TCPTimeout) Timeout {
	if t == nil || t.Idle == nil {
		return Timeout{Idle: DefaultTCPIdle}
	}
	return Timeout{Idle: t.Idle.Std()}
}

func resolveProbe(l *VirtualNodeListener) *Probe {
	h := l.HealthCheck
	if h == nil {
		return nil
	}
	p := &Probe{
		Protocol: h.Protocol, Path: h.Path, Port: h.Port,
		Interval:  time.Duration(h.IntervalMillis) * time.Millisecond,
		Timeout:   time.Duration(h.TimeoutMillis) * time.Millisecond,
		Healthy:   uint32(h.HealthyThreshold),   //nolint:gosec // 2 to 10, by its check
		Unhealthy: uint32(h.UnhealthyThreshold), //nolint:gosec // 2 to 10, by its check
	}
	if p.Path == "" {
		p.Path = defaultProbePath
	}
	if p.Port == 0 {
		p.Port = l.PortMapping.Port
	}
	return p
}

func resolveTLS(t *ListenerTLS) *TLS {
	if t == nil {
		return nil
	}
	out := &TLS{Mode: t.Mode, Certificate: t.Certificate.secret()}
	if v := t.Validation; v != nil {
		out.ClientTrust = trustSecret(v.Trust.File, v.Trust.SDS)
		out.Clients = v.SubjectAlternativeNames.exact()
	}
	return out
}

func resolveClientTLS(p *ClientPolicy) *ClientTLS {
	if p == nil || p.TLS == nil {
		return nil
	}
	v := p.TLS.Validation
	return &ClientTLS{
		Certificate: p.TLS.Certificate.secret(), Trust: trustSecret(v.Trust.File, v.Trust.SDS),
		Servers: v.SubjectAlternativeNames.exact(),
		Enforce: p.TLS.Enforce == nil || *p.TLS.Enforce, Ports: p.TLS.Ports,
	}
}
