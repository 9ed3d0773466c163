package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/server/admin"
	"signet.example/server/fault"
)

// older is the admin socket of a server that lacks a call, and refuses one of nothing by the
// server's own code.
type older struct {
	api.UnimplementedAdminServer

	real *admin.Server
}

func (o older) Explain(ctx context.Context, req *api.ExplainRequest) (*api.ExplainResponse, error) {
	resp, err := o.real.Explain(ctx, req)
	return resp, fault.ToOperator(err)
}

func TestASocketThatIsNotAServersIsNamedForWhatItIs(t *testing.T) {
	listen := func() (net.Listener, string) {
		t.Helper()
		at := filepath.Join(t.TempDir(), "some.sock")
		l, err := new(net.ListenConfig).Listen(t.Context(), "unix", at)
		if err != nil {
			t.Fatal(err)
		}
		return l, at
	}
	call := func(socket string) error {
		c := &cobra.Command{}
		c.SetContext(t.Context())
		socketFlag(c)
		if err := c.Flags().Set("socket", socket); err != nil {
			t.Fatal(err)
		}
		return withAdmin(c, func(a api.AdminClient) error {
			_, err := a.BanAgent(t.Context(), &api.BanAgentRequest{})
			return err
		})
	}
	web, webSocket := listen()
	h := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go func() { _ = h.Serve(web) }()    // until the test is over
	t.Cleanup(func() { _ = h.Close() }) // the test is over
	foreign, foreignSocket := listen()
	f := grpc.NewServer()
	go func() { _ = f.Serve(foreign) }() // until the test is over
	t.Cleanup(f.Stop)
	old, oldSocket := listen()
	o := grpc.NewServer()
	api.RegisterAdminServer(o, older{real: admin.New(admin.Config{})}) // of nothing: it panics where anything is looked at
	go func() { _ = o.Serve(old) }()                                   // until the test is over
	t.Cleanup(o.Stop)
	for socket, want := range map[string]string{webSocket: "a socket that speaks HTTP/1.1", foreignSocket: "a socket of another program"} {
		if err := call(socket); exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
	}
	err := call(oldSocket)
	if f := failureOf("signet", err); status.Code(err) != codes.Unimplemented || f.Hint != "upgrade the server" || f.ExitCode != exitFailed {
		t.Errorf("a server that lacks a call: %+v", f)
	}
}
