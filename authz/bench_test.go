package authz_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	"signet.example/authz"
)

// reportCPU reports the process's CPU time for each operation: on a machine
// that is shared it says more than the wall clock.
func reportCPU(b *testing.B) func() {
	b.Helper()
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began := cpu()
	return func() { b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op") }
}

func benchmarkCheck(b *testing.B, f *fixture, q *authv3.CheckRequest, allowed bool) {
	b.Helper()
	ctx := asked(b.Context())
	b.ReportAllocs()
	defer reportCPU(b)()
	for b.Loop() {
		resp, err := f.Check(ctx, q)
		if err != nil || (resp.GetOkResponse() != nil) != allowed {
			b.Fatal(resp, err)
		}
	}
}

func quiet(o *authz.Options, _ *authz.Config) { o.Record = nil }

func browser(f *fixture, method, path string, more ...string) *authv3.CheckRequest {
	return f.question(method, path, web, append([]string{
		"user-agent: Mozilla/5.0 (X11; Linux x86_64)", "accept: application/json", "accept-encoding: gzip", "x-request-id: 5b6f1f5e",
		"x-forwarded-proto: https", "content-type: application/json",
	}, more...)...)
}

func BenchmarkCheckIdentity(b *testing.B) {
	f := newFixture(b, quiet)
	benchmarkCheck(b, f, browser(f, "GET", "/orders/1"), true)
}

func BenchmarkCheckDeniedWithTrace(b *testing.B) {
	f := newFixture(b, quiet)
	benchmarkCheck(b, f, browser(f, "PUT", "/orders/1"), false)
}

func BenchmarkCheckAmbiguousPath(b *testing.B) {
	f := newFixture(b, quiet)
	benchmarkCheck(b, f, browser(f, "GET", "/x/%2e%2e/admin"), false)
}

func BenchmarkCheckHealthExemption(b *testing.B) {
	f := newFixture(b, quiet)
	benchmarkCheck(b, f, browser(f, "GET", "/health"), true)
}

func BenchmarkCheckRememberedToken(b *testing.B) {
	f := newFixture(b, quiet, withJWT)
	benchmarkCheck(b, f, browser(f, "POST", "/x", "authorization: Bearer "+sign(keys()["rsa"], rs256, good().json())), true)
}

func BenchmarkVerifyTokenFirstTime(b *testing.B) {
	for _, c := range [][2]string{{"rsa", rs256}, {"ec", `{"alg":"ES256","kid":"ec"}`}, {"ed", `{"alg":"EdDSA","kid":"ed"}`}} {
		b.Run(c[0], func(b *testing.B) {
			tok, verify := sign(keys()[c[0]], c[1], good().json()), authz.TokenVerifier(issuers())
			b.ReportAllocs()
			defer reportCPU(b)()
			for b.Loop() {
				if err := verify(tok, noon); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// alwaysOK is the floor: what the call itself costs.
type alwaysOK struct {
	authv3.UnimplementedAuthorizationServer
}

func (alwaysOK) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
}

// BenchmarkCheckOverUnixSocket has the identity decision and, beside it, a
// server that always says OK.
func BenchmarkCheckOverUnixSocket(b *testing.B) {
	f := newFixture(b, quiet)
	caller := func() (authz.Caller, bool) { return authz.Caller{Destination: orders, Proxy: "p"}, true }
	for _, c := range []struct {
		name   string
		server authv3.AuthorizationServer
	}{{"always OK", alwaysOK{}}, {"identity", f}} {
		b.Run(c.name, func(b *testing.B) {
			client, q := serve(b, c.server, caller)(), browser(f, "GET", "/orders/1")
			b.ReportAllocs()
			defer reportCPU(b)()
			for b.Loop() {
				if resp, err := client.Check(b.Context(), q); err != nil || resp.GetOkResponse() == nil {
					b.Fatal(resp, err)
				}
			}
		})
	}
}
