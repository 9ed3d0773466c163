package server_test

import (
	"crypto/tls"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/attestation/awstask"
	"signet.example/attestation/nodes"
)

// Tasks come as a deployment makes them, are served soon, though the server is started
// again meanwhile, and leave nothing behind when they end.
func TestManyTasksJoinWithinTheMinuteAndLeaveNoAgentBehind(t *testing.T) {
	const perSecond = 17                        // 1,000 a minute, all from one address
	tasks, soak := 30, os.Getenv("SOAK") == "1" // each has a client of STS in this process
	if soak {
		tasks = 1000
	}
	r, aws := newTasks(t)
	r.halt()
	r.cfg.Listen = r.addr.Agents // where they find it again
	r.start()
	for name, value := range aws.Environment(aws.ARN("web")) {
		t.Setenv(name, value)
	}
	give, err := nodes.HostConfig{AWSTask: awstask.Host{Region: "environment", Endpoint: aws.URL()}}.Evidence()
	if err != nil {
		t.Fatal(err)
	}
	address := r.addr.Agents
	hosts, took := make([]*host, tasks), make([]time.Duration, tasks)
	for n := range hosts {
		hosts[n] = newHost(r)
	}
	begun := time.Now()
	var wg sync.WaitGroup
	for n, h := range hosts {
		wg.Go(func() {
			arrives := begun.Add(time.Duration(n) * time.Second / perSecond)
			time.Sleep(time.Until(arrives))
			for known := false; ; time.Sleep(100 * time.Millisecond) {
				evidence := give
				if known {
					evidence = nil
				}
				err := h.served(address, evidence)
				if err == nil {
					took[n] = time.Since(arrives)
					return
				}
				switch code := status.Code(err); {
				case code == codes.InvalidArgument && !known: // the answer was lost, and not what it said
					known = true
				case code == codes.PermissionDenied || code == codes.InvalidArgument:
					t.Errorf("task %d: %v", n, err)
					return
				}
			}
		})
	}
	time.Sleep(time.Until(begun.Add(time.Duration(tasks/2) * time.Second / perSecond)))
	r.halt()
	r.start()
	wg.Wait()
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("%d tasks in %.1f s: served after p50 %s, p99 %s; STS was asked %d times, keys were fetched %d times", tasks, time.Since(begun).Seconds(), took[len(took)/2].Round(time.Millisecond), p99.Round(time.Millisecond), aws.Asked.Load(), aws.Fetches.Load())
	if soak && p99 > 15*time.Second {
		t.Errorf("served after p99 %s, of %s", p99, took)
	}
	if n := aws.Fetches.Load(); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
	if n := len(r.agents()); n != tasks {
		t.Errorf("%d agents of %d tasks", n, tasks)
	}
	for _, h := range hosts { // over connections that stand, or are made anew
		eventually(t, "a goodbye", func() bool { return status.Code(h.leave()) != codes.Unavailable })
	}
	eventually(t, "none is left behind", func() bool { return len(r.agents()) == 0 })
}

// served joins, or comes back where it has no evidence, and asks for what it may be.
func (h *host) served(address string, evidence nodes.Evidence) error {
	l, err := h.connectTo(address)
	if err != nil {
		return err
	}
	req := &api.AttestRequest{Csr: newCSR(h.t, h.key), Hostname: "task"}
	if evidence != nil {
		if err := evidence(h.t.Context(), h.channel(l), req); err != nil {
			return err
		}
	}
	answer, err := api.NewAgentAPIClient(l.conn).Attest(h.t.Context(), req)
	if err != nil {
		return err
	}
	h.id, h.svid = answer.GetAgentId(), tls.Certificate{Certificate: answer.GetChain(), PrivateKey: h.key}
	h.conn = dial(h.t, address, h.svid, nil, grpc.WithPerRPCCredentials(h.instance))
	for range 50 {
		if _, err = h.issue("disk"); status.Code(err) != codes.Unavailable {
			return err
		}
		time.Sleep(100 * time.Millisecond) // it is started again
	}
	return err
}
