package agent_test

import (
	"path/filepath"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/api"
)

func TestOnlyABoundProxyMayAskWhoCallsOut(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("one", "/shop/one", self(t)), binding("web", "web", "unix:path:/bin/other")}
	})
	r.ready()
	conn, err := grpc.NewClient("unix:"+filepath.Join(r.dir, "wayout.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the test is over
	answer, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{})
	if err != nil || codes.Code(answer.GetStatus().GetCode()) != codes.PermissionDenied { //nolint:gosec // a status code
		t.Errorf("%v, %v", answer, err)
	}
	r.await("the metric", func() bool { return r.metric(`signet_agent_wayout_connections_total{result="proxy"}`) == "1" })
}
