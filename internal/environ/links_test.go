package environ_test

import (
	"net"
	"slices"
	"testing"

	"signet.example/internal/environ"
)

// links are what Kubernetes says of a service with two ports (pkg/kubelet/envvars).
func links(service, host string) []string {
	tcp, udp := net.JoinHostPort(host, "8443"), net.JoinHostPort(host, "53")
	return []string{
		service + "_SERVICE_HOST=" + host, service + "_SERVICE_PORT=8443", service + "_SERVICE_PORT_AGENTS=8443", service + "_SERVICE_PORT_DNS_UDP=53",
		service + "_PORT=tcp://" + tcp,
		service + "_PORT_8443_TCP=tcp://" + tcp, service + "_PORT_8443_TCP_PROTO=tcp", service + "_PORT_8443_TCP_PORT=8443", service + "_PORT_8443_TCP_ADDR=" + host,
		service + "_PORT_53_UDP=udp://" + udp, service + "_PORT_53_UDP_PROTO=udp", service + "_PORT_53_UDP_PORT=53", service + "_PORT_53_UDP_ADDR=" + host,
	}
}

func TestLinksOfServicesAreKnownByTheirNamesAndWhatTheySay(t *testing.T) {
	all := slices.Concat(links("SIGNET", "10.0.0.1"), links("SIGNET_SERVER", "10.0.0.2"), links("ENVOY", "fd00::3"))
	if left := environ.WithoutLinks(append(all, "PATH=/bin")); !slices.Equal(left, []string{"PATH=/bin"}) {
		t.Errorf("%q", left)
	}
	for _, one := range []string{
		"SIGNET_PORT=8443", "SIGNET_PORT=tcp://10.0.0.2:8443", "SIGNET_PORT=http://10.0.0.1:8443", "SIGNET_PORT=tcp://10.0.0.1",
		"SIGNET_SERVICE_PORT=agents", "SIGNET_SERVICE_PORT=65536", "SIGNET_SERVICE_PORTS=1", "SIGNET_SERVICE=10.0.0.1",
		"SIGNET_PORT_8443_TCP=tcp://10.0.0.1:8444", "SIGNET_PORT_8443_TCP_ADDR=10.0.0.2", "SIGNET_PORT_8443_TCP_PORT=8444", "SIGNET_PORT_8443_TCP_PROTO=udp", "SIGNET_PORT_8443_TLS=tls://10.0.0.1:8443",
		"SIGNET_OTHER_PORT=tcp://10.0.0.1:8443", "OTHER_SERVICE_HOST=mesh",
	} {
		if left := environ.WithoutLinks(append(links("SIGNET", "10.0.0.1"), one)); !slices.Equal(left, []string{one}) {
			t.Errorf("with %s there are %q", one, left)
		}
	}
	if left := environ.WithoutLinks([]string{"SIGNET_PORT=tcp://10.0.0.1:8443"}); len(left) != 1 {
		t.Error("of a service without an address")
	}
}
