package server_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"signet.example/api"
	"signet.example/attestation/k8spsat"
	"signet.example/attestation/nodes"
	"signet.example/test/parts"
)

const forPods = "signet:" + trustDomain

var webPod = parts.Pod{Namespace: "shop", ServiceAccount: "web", Name: "web-5d4f8", UID: "4f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"}

// webPods is a group by a service account, and what hangs on it.
var webPods = strings.ReplaceAll(strings.ReplaceAll(webTasks, "web-tasks", "web-pods"), "aws_task:role:arn:aws:iam::123456789012:role/web", "k8s_psat:service_account:prod/shop/web")

// newPods runs a server that takes pods of a cluster with the service accounts web and orders.
func newPods(t *testing.T) (*rig, *parts.Cluster) {
	t.Helper()
	c := parts.NewCluster(t)
	r := newRig(t)
	r.halt()
	r.cfg.Join.K8sPSAT.Clusters = []k8spsat.Cluster{{Name: "prod", Issuer: c.Issuer(), KeysURL: c.KeysURL(), ServiceAccounts: []string{"shop/web", "shop/orders"}}}
	r.start()
	r.apply(webPods)
	eventually(t, "the keys are fetched", func() bool { return c.Fetches.Load() == 1 })
	return r, c
}

// showsPod is what a pod shows with a token.
func (h *host) showsPod(token string) *api.AttestRequest {
	return &api.AttestRequest{Csr: newCSR(h.t, h.key), Hostname: "web-5d4f8", Evidence: &api.AttestRequest_K8SPsat{K8SPsat: &api.K8SPSAT{Token: token}}}
}

// joinsAsPod has a new host join with a token.
func (r *rig) joinsAsPod(token string) (*host, error) {
	h := newHost(r)
	return h, h.send(h.connect(), h.showsPod(token))
}

func TestAPodJoinsByItsProjectedTokenAndIsInTheGroupOfItsServiceAccount(t *testing.T) {
	r, c := newPods(t)
	token := c.Sign(c.Claims(webPod, forPods))
	give, err := nodes.HostConfig{K8sPSAT: k8spsat.Host{TokenFile: c.Project(token)}}.Evidence()
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(r)
	l := h.connect()
	req := &api.AttestRequest{Csr: newCSR(t, h.key), Hostname: "web-5d4f8"}
	if err := give(t.Context(), h.channel(l), req); err != nil {
		t.Fatal(err)
	}
	if err := h.send(l, req); err != nil {
		t.Fatal(err)
	}
	if got := h.may(); !slices.Equal(got, []string{"disk"}) {
		t.Errorf("it is given %v", got)
	}
	a := r.agent(h.id)
	if a.GetGroup() != "web-pods" || a.GetAttestation() != "k8s_psat" || !slices.Contains(a.GetSelectors(), "k8s_psat:pod:prod/shop/web-5d4f8") {
		t.Errorf("%v", a)
	}
	if err := h.attest(""); err != nil { // by its host key from now on
		t.Error(err)
	}
	for _, row := range rowsOf(t, "attest") {
		if strings.Contains(row, token) {
			t.Error("the token is in the audit trail")
		}
	}
	if err := h.leave(); err != nil {
		t.Errorf("a pod that ends does not say goodbye: %v", err)
	}
	eventually(t, "it is forgotten", func() bool { return len(r.agents()) == 0 })
}

func TestEvidenceOfAPodThatIsNotTheOneItShouldBeIsRefused(t *testing.T) {
	r, c := newPods(t)
	other := parts.NewCluster(t)
	with := func(claims map[string]any, name string, value any) string {
		return c.Sign(parts.Without(claims, map[string]any{name: value}))
	}
	good := c.Claims(webPod, forPods)
	for name, x := range map[string]struct{ token, want string }{
		"another cluster":                   {other.Sign(other.Claims(webPod, forPods)), "no JWTIssuer has its issuer"},
		"another cluster's key":             {other.Sign(good), "signature is wrong"},
		"a service account that has no say": {c.Sign(c.Claims(parts.Pod{Namespace: "shop", ServiceAccount: "admin", Name: "a", UID: webPod.UID}, forPods)), "its service account"},
		"another namespace":                 {c.Sign(c.Claims(parts.Pod{Namespace: "kube-system", ServiceAccount: "web", Name: "a", UID: webPod.UID}, forPods)), "its service account"},
		"the API server's audience":         {c.Sign(c.Claims(webPod, "https://kubernetes.default.svc")), "its audience is another"},
		"another trust domain":              {c.Sign(c.Claims(webPod, "signet:other.example")), "its audience is another"},
		"older than ten minutes":            {with(good, "iat", time.Now().Add(-601*time.Second).Unix()), "more than 10m0s ago"},
		"ended":                             {c.Sign(parts.Without(good, map[string]any{"iat": time.Now().Add(-200 * time.Second).Unix(), "exp": time.Now().Add(-90 * time.Second).Unix()})), "expired"},
		"to come":                           {with(good, "nbf", time.Now().Add(2*time.Minute).Unix()), "not valid yet"},
		"no token":                          {"a.b.c", "malformed"},
	} {
		h, err := r.joinsAsPod(x.token)
		wantCode(t, err, codes.PermissionDenied, "k8s_psat", x.want)
		wantCode(t, h.attest(""), codes.Unauthenticated)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	if n := c.Fetches.Load() + other.Fetches.Load(); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
}

// What is proven is one pod: it is one agent, whoever shows its tokens, and however many.
func TestAPodIsOneAgentAndEachOfItsTokensGoodOnce(t *testing.T) {
	r, c := newPods(t)
	token := c.Sign(c.Claims(webPod, forPods))
	h, err := r.joinsAsPod(token)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.joinsAsPod(token)
	wantCode(t, err, codes.AlreadyExists, "was used before")
	r.halt()
	r.start()
	_, err = r.joinsAsPod(token)
	wantCode(t, err, codes.AlreadyExists, "was used before")
	again, err := r.joinsAsPod(c.Sign(c.Claims(webPod, forPods))) // whose container began anew
	if err != nil || again.id != h.id {
		t.Errorf("by its next token the pod is %s and was %s: %v", again.id, h.id, err)
	}
	next := webPod
	next.UID = "5f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"
	if other, err := r.joinsAsPod(c.Sign(c.Claims(next, forPods))); err != nil || other.id == h.id {
		t.Errorf("the next pod of the same name: %s, %v", other.id, err)
	}
	r.ban(h.id)
	_, err = r.joinsAsPod(c.Sign(c.Claims(webPod, forPods)))
	wantCode(t, err, codes.PermissionDenied, "is banned")
}

func TestAServiceAccountHasAsManyAgentsAsItMayAndItsPodsComeBack(t *testing.T) {
	r, c := newPods(t)
	r.halt()
	r.cfg.Join.K8sPSAT.AgentsPerServiceAccount = 1
	r.start()
	h, err := r.joinsAsPod(c.Sign(c.Claims(webPod, forPods)))
	if err != nil {
		t.Fatal(err)
	}
	next := webPod
	next.UID = "5f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"
	_, err = r.joinsAsPod(c.Sign(c.Claims(next, forPods)))
	wantCode(t, err, codes.ResourceExhausted, "k8s_psat:service_account:prod/shop/web has 1 agents", "join.k8s_psat.agents_per_service_account")
	awaitFinding(t, r, "SIG044", "1 agents joined by it")
	if again, err := r.joinsAsPod(c.Sign(c.Claims(webPod, forPods))); err != nil || again.id != h.id {
		t.Errorf("the pod that has the place: %v", err)
	}
	r.halt()
	r.cfg.Join.K8sPSAT.Clusters[0].ServiceAccounts = []string{"shop/orders"}
	r.start()
	wantCode(t, h.attest(""), codes.Unauthenticated) // its key was replaced by that of its second run
	_, err = r.joinsAsPod(c.Sign(c.Claims(webPod, forPods)))
	wantCode(t, err, codes.PermissionDenied, "its service account")
}

// A9-75: it waited for its next token once its NodeGroup was there.
func TestATokenOfAPodThatIsInNoGroupStaysGoodUntilItIsInOne(t *testing.T) {
	r, c := newPods(t)
	orders := parts.Pod{Namespace: "shop", ServiceAccount: "orders", Name: "orders-1", UID: "6f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"}
	token := c.Sign(c.Claims(orders, forPods))
	for range 2 {
		_, err := r.joinsAsPod(token)
		wantCode(t, err, codes.Unavailable, "no NodeGroup's selectors fit", "k8s_psat:service_account:prod/shop/orders")
	}
	r.apply(groupOf("orders-pods", "k8s_psat:service_account:prod/shop/orders"))
	if _, err := r.joinsAsPod(token); err != nil {
		t.Error(err)
	}
}

// The keys of a cluster whose API server nobody outside reaches are in a file.
func TestKeysOfAClusterInAFileAreReadAndNotFetched(t *testing.T) {
	c := parts.NewCluster(t)
	r := newRig(t)
	r.halt()
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, c.JWKS(), 0o600); err != nil {
		t.Fatal(err)
	}
	r.cfg.Join.K8sPSAT.Clusters = []k8spsat.Cluster{{Name: "prod", Issuer: "https://kubernetes.default.svc.cluster.local", KeysFile: file, ServiceAccounts: []string{"shop/web"}}}
	r.start()
	r.apply(webPods)
	claims := parts.Without(c.Claims(webPod, forPods), map[string]any{"iss": "https://kubernetes.default.svc.cluster.local"})
	if _, err := r.joinsAsPod(c.Sign(claims)); err != nil {
		t.Error(err)
	}
	if n := c.Fetches.Load(); n != 0 {
		t.Errorf("keys were fetched %d times", n)
	}
}

func TestAServerThatTakesNoPodsSaysSo(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	_, err := r.joinsAsPod("a.b.c")
	wantCode(t, err, codes.PermissionDenied, "join.k8s_psat")
}
