package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/proxy"
	"signet.example/test/meshtest"
	"signet.example/test/peertest"
)

// strangerEnv holds the questions when the test binary is run as another user.
const strangerEnv = "SIGNET_TEST_STRANGER"

func TestMain(m *testing.M) {
	if meshtest.Listener() {
		return
	}
	if at := os.Getenv(containedEnv); at != "" {
		os.Exit(contained(at))
	}
	if text := os.Getenv(strangerEnv); text != "" {
		os.Exit(stranger(text))
	}
	if path := os.Getenv(listenEnv); path != "" {
		os.Exit(listenUntilClosed(path))
	}
	os.Exit(m.Run())
}

// question is one thing that a process asks of a socket.
type question struct {
	// Do is dial, open, xds, authz, workload, admin, sign or flood.
	Do, Socket string
	// Node is an xDS node id; Then another one for the same stream.
	Node, Then string
	// Times is how many batches are to be signed.
	Times int
	// Names are secrets that are asked for by name; none: the clusters, all.
	Names []string
	// Destination and Revision are what the asker claims to ext_authz.
	Destination, Revision string
	// For is how long a flood lasts.
	For time.Duration
	// Header is the Workload API's security header, as often as it is sent.
	Header []string
}

// told is what came of it.
type told struct {
	Code, Message  string
	Names, Missing []string // resources that came, and those that came as "no such"
	Status         int      // of an ext_authz answer
	Tries          int      // of a flood
}

func stranger(text string) int {
	var questions []question
	if err := json.Unmarshal([]byte(text), &questions); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(askAll(questions)); err != nil {
		return 1
	}
	return 0
}

// askAs asks from a new process of another user.
func askAs(t *testing.T, uid uint32, questions ...question) []told {
	t.Helper()
	text, err := json.Marshal(questions)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// The link leads to this binary wherever it lies: its folder is ours alone.
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = []string{strangerEnv + "=" + string(text)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("as uid %d: %v: %s", uid, err, errs.String())
	}
	var answers []told
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(questions) {
		t.Fatalf("as uid %d: %v: %s", uid, err, out)
	}
	return answers
}

func askAll(questions []question) []told {
	var out []told
	for _, q := range questions {
		out = append(out, q.ask())
	}
	return out
}

func (q question) ask() told {
	if q.Do == "flood" {
		return q.flood()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	switch q.Do {
	case "dial":
		return tried((&net.Dialer{}).DialContext(ctx, "unix", q.Socket))
	case "open":
		return tried(os.Open(q.Socket))
	}
	conn, err := grpc.NewClient("unix:"+q.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(queued))
	if err != nil {
		return told{Code: "none", Message: err.Error()}
	}
	defer func() { _ = conn.Close() }() // the process ends
	var out told
	switch q.Do {
	case "xds":
		err = q.xds(ctx, conn, &out)
	case "authz":
		err = q.authz(ctx, conn, &out)
	case "workload":
		err = q.workload(ctx, conn, &out)
	case "admin":
		_, err = api.NewAdminClient(conn).Get(ctx, &api.GetRequest{Kind: "all"})
	case "sign":
		err = q.sign(ctx, conn, &out)
	}
	if out.Code == "" || err != nil {
		s := status.Convert(err)
		out.Code, out.Message = s.Code().String(), s.Message()
	}
	return out
}

// queued connects as an Envoy does: the queue that the kernel has for a socket is nobody's,
// and who finds it full comes again.
func queued(ctx context.Context, addr string) (net.Conn, error) {
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(addr, "unix:"))
		if !errors.Is(err, syscall.EAGAIN) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// tried reports whether something could be had, and gives it back.
func tried(c io.Closer, err error) told {
	if err == nil {
		_ = c.Close() // see above
		return told{Code: "OK"}
	}
	var errno syscall.Errno
	_ = errors.As(err, &errno) // 0 is told as it is
	return told{Code: errno.Error(), Message: err.Error()}
}

func (q question) xds(ctx context.Context, conn *grpc.ClientConn, out *told) error {
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	shape := proxy.Shape{Bind: "127.0.0.1", App: "127.0.0.2", Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort("127.0.0.1:15001")}, AuthzSocket: "/nowhere/authz.sock", WayoutSocket: "/nowhere/wayout.sock"}
	req := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: q.Node, Metadata: shape.Metadata()}, TypeUrl: ads.ClusterType, ResourceNamesSubscribe: []string{"*"}}
	if len(q.Names) > 0 {
		req.TypeUrl, req.ResourceNamesSubscribe = ads.SecretType, q.Names
	}
	if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) { // of one that was refused already, Recv says why
		return err
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, r := range resp.GetResources() {
			out.Names = append(out.Names, r.GetName())
		}
		out.Missing = append(out.Missing, resp.GetRemovedResources()...)
		if len(q.Names) > 0 && len(out.Names)+len(out.Missing) < len(q.Names) {
			continue // they may come apart
		}
		slices.Sort(out.Names)
		slices.Sort(out.Missing)
		if q.Then == "" {
			return nil
		}
		other := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: q.Then, Metadata: shape.Metadata()}, TypeUrl: ads.SecretType, ResourceNamesSubscribe: []string{"*"}}
		if err := stream.Send(other); err != nil {
			return err
		}
		q.Then, q.Names = "", nil
	}
}

func (q question) authz(ctx context.Context, conn *grpc.ClientConn, out *told) error {
	answer, err := authv3.NewAuthorizationClient(conn).Check(ctx, peertest.Present(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Destination:       &authv3.AttributeContext_Peer{Principal: q.Destination},
		Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/orders", Host: "orders", Protocol: "HTTP/1.1"}},
		ContextExtensions: map[string]string{"signet.policy_revision": q.Revision},
	}}, "spiffe://test.example/test/front"))
	if err != nil {
		return err
	}
	out.Code, out.Status = codes.OK.String(), int(answer.GetDeniedResponse().GetStatus().GetCode())
	if answer.GetStatus().GetCode() == 0 {
		out.Status = 200
	}
	for _, h := range answer.GetDeniedResponse().GetHeaders() {
		if strings.HasPrefix(h.GetHeader().GetKey(), "x-signet-") {
			out.Names = append(out.Names, h.GetHeader().GetValue())
		}
	}
	return nil
}

func (q question) workload(ctx context.Context, conn *grpc.ClientConn, out *told) error {
	for _, v := range q.Header {
		ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", v)
	}
	stream, err := workload.NewSpiffeWorkloadAPIClient(conn).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		return err
	}
	answer, err := stream.Recv()
	for _, s := range answer.GetSvids() {
		out.Names = append(out.Names, s.GetSpiffeId())
	}
	return err
}
