package xdstest_test

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"signet.example/mesh/dialect"
	"signet.example/mesh/graphtest"
	"signet.example/mesh/importer"
	"signet.example/test/envoytest"
	xdstest "signet.example/test/xds"
)

var nodeID = regexp.MustCompile(`"id": "mesh/[^"]+"`)

// comesBack holds what is read from an Envoy's dump against what it was made of. Translated
// again it gives the same routes, and of each node that is called the listener has the same
// protocol, health check and outlier detection, and its name in DNS. What the dump does not
// have must be a finding; how many objects are incomplete because of that is returned.
func comesBack(t *testing.T, envoy *envoytest.Envoy, of xdstest.Case) int {
	t.Helper()
	dump := nodeID.ReplaceAll(envoy.ConfigDump(t), []byte(`"id": "`+of.Ref().String()+`"`)) // one Envoy is many proxies here
	report := importer.Read([]dialect.File{{Name: "dump.json", Content: dump}}, importer.Options{})
	text, findings := new(strings.Builder), new(strings.Builder)
	for _, m := range report.Manifests() {
		text.WriteString("---\n" + string(m.Content))
	}
	for _, f := range report.Findings {
		findings.WriteString(f.String() + "\n")
	}
	if !report.Done() {
		why := findings.String()
		if !strings.Contains(why, "a route answers by itself") {
			t.Errorf("%s %s: %s", of.Name, of.Node, why)
		}
		return 1
	}
	back := of
	back.Input.Graph = graphtest.Graph(t, "dump.yaml", []byte(text.String()))
	if back.Input.Graph.Node(of.Ref()) == nil {
		t.Fatalf("%s: it has no virtual node %s\n%s", of.Name, of.Node, text)
	}
	want := routesOf(t, of, "rds_egress")
	if got := routesOf(t, back, "rds_egress"); !proto.Equal(got, want) {
		t.Errorf("%s %s: translated again it is\n%s\nwas\n%s\nby\n%s", of.Name, of.Node, prototext.Format(got), prototext.Format(want), text)
	}
	for _, n := range back.Input.Graph.Nodes(of.Mesh) {
		was := of.Input.Graph.Node(n.Ref)
		if was == nil {
			t.Errorf("%s: there was no %s", of.Name, n.Ref)
			continue
		}
		if n.DNS != nil && (was.DNS == nil || strings.TrimSuffix(was.DNS.Hostname, ".") != n.DNS.Hostname || was.DNS.ResponseType != n.DNS.ResponseType) {
			t.Errorf("%s: %s is found by %+v, was by %+v", of.Name, n.Ref, n.DNS, was.DNS)
		}
		if n.Ref == of.Ref() {
			continue // its own listeners are called by others
		}
		for _, l := range n.Listeners {
			for _, o := range was.Listeners {
				if l.Port == o.Port && (l.Protocol != o.Protocol || !reflect.DeepEqual(l.Probe, o.Probe) || !reflect.DeepEqual(l.Outliers, o.Outliers)) {
					t.Errorf("%s: port %d of %s is %+v, was %+v", of.Name, l.Port, n.Ref, l, o)
				}
			}
		}
	}
	return 0
}
