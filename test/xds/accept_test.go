package xdstest_test

import (
	"path/filepath"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3" // config dumps hold it
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"signet.example/test/invariants"
	xdstest "signet.example/test/xds"
)

func TestEnvoyAcceptsEveryGoldenViewAndKeepsItsInvariants(t *testing.T) {
	dirs, err := filepath.Glob("../../xds/testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	pki := newPKI(t)
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			c := xdstest.Load(t, dir)
			c.Shape.Bind = loopback()
			if c.Shape.Egress.Socket != "" {
				c.Shape.Egress.Socket = filepath.Join(socketDir(t), "out.sock")
			}
			p := startProxy(t, c, pki)
			const deprecated = "runtime.deprecated_feature_use"
			if n, ok := p.envoy.Stats(t, deprecated)[deprecated]; !ok || n != 0 {
				t.Errorf("%d uses of what Envoy has deprecated:\n%s", n, p.envoy.Log())
			}
			var dump adminv3.ConfigDump
			if err := protojson.Unmarshal(p.envoy.ConfigDump(t), &dump); err != nil {
				t.Fatal(err)
			}
			if len(dump.GetConfigs()) < 4 {
				t.Fatalf("a config dump of %d parts", len(dump.GetConfigs()))
			}
			check := invariants.Check
			if c.Gateway {
				check = invariants.CheckGateway
			}
			for _, v := range check([]proto.Message{&dump}) {
				t.Errorf("config dump: %s", v)
			}
		})
	}
}
