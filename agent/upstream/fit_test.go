package upstream

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
)

func refused(n int) []*api.ResourceStatus {
	var list []*api.ResourceStatus
	for i := range n {
		list = append(list, &api.ResourceStatus{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Name: fmt.Sprint("cluster-", i), Version: "0123456789abcdef", Message: strings.Repeat("x", 1024)})
	}
	return list
}

// A local process that refuses all that it is sent, as many proxies, would take the session
// from its host, and with it the endpoints of all others.
func TestAReportIsOneThatAServerTakesWhateverProxiesRefuse(t *testing.T) {
	r := &api.Report{}
	for range 2000 {
		r.Views = append(r.Views, &api.ViewStatus{Version: "v", Proxies: 1, Rejected: refused(20)})
		r.Own = append(r.Own, &api.AgentFinding{Text: "a file is missing"})
		r.Findings = append(r.Findings, "a file is missing")
	}
	for range 100 {
		r.Proxies = append(r.Proxies, &api.ProxyStatus{Rejected: refused(2000), LeftOut: refused(2000)})
	}
	fit(r)
	if n := proto.Size(r); n > 4<<20 {
		t.Errorf("%d bytes", n)
	}
	if len(r.GetViews()) > 1024 || len(r.GetOwn()) > 1024 || len(r.GetFindings()) > 1024 {
		t.Errorf("%d views, %d and %d findings", len(r.GetViews()), len(r.GetOwn()), len(r.GetFindings()))
	}
	if last := r.GetOwn()[len(r.GetOwn())-1].GetText(); !strings.Contains(last, "1001 more findings") {
		t.Error(last)
	}
	for _, v := range r.GetViews() {
		if len(v.GetRejected()) == 0 || v.GetVersion() != "" {
			t.Fatalf("%d refusals are told, and that %q was answered", len(v.GetRejected()), v.GetVersion())
		}
	}
	one := &api.Report{Views: []*api.ViewStatus{{Version: "v", Rejected: refused(1100)}, {Version: "v", Rejected: refused(100)}}}
	fit(one)
	if n := len(one.GetViews()[0].GetRejected()); n < 100 || n > 1024 {
		t.Errorf("%d of 1100 are told", n)
	}
	if v := one.GetViews()[1]; len(v.GetRejected()) != 100 || v.GetVersion() != "v" {
		t.Errorf("of a few, %d are told", len(v.GetRejected()))
	}
}
