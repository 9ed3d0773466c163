package agent

import "testing"

func TestMetricsThatOthersReachAreAnExplicitChoice(t *testing.T) {
	for address, open := range map[string]bool{
		"127.0.0.1:9465": false, "[::1]:0": false, "127.9.9.9:1": false, "localhost:1": false, "[::ffff:127.0.0.1]:1": false,
		"0.0.0.0:9465": true, "[::]:1": true, "10.0.0.1:1": true, "node.example:1": true, "[fe80::1%eth0]:1": true,
	} {
		c := Config{Server: "mesh:8443", Metrics: address}
		if err := c.Validate(); err != nil || c.metricsOpen() != open {
			t.Errorf("%s: open %v, want %v; %v", address, c.metricsOpen(), open, err)
		}
	}
	if (Config{}).withDefaults().metricsOpen() {
		t.Error("they are open by default")
	}
	if err := (Config{Server: "mesh:8443", Metrics: ":9465"}).Validate(); err == nil {
		t.Error("all addresses, without a word about it")
	}
}
