package join

import (
	"encoding/pem"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/attestation/awstask"
	"signet.example/attestation/nodes"
	"signet.example/test/parts"
)

// byRole is how a task joins.
func (s *aServer) byRole(t *testing.T) (Ways, *parts.STS) {
	t.Helper()
	aws := parts.NewSTS(t, "123456789012")
	for name, value := range aws.Environment(aws.ARN("web")) {
		t.Setenv(name, value)
	}
	s.tasks = true
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.root.Cert.Raw})
	return Ways{Own: nodes.HostConfig{AWSTask: awstask.Host{Region: "environment", Endpoint: aws.URL()}}, TrustPEM: string(root)}, aws
}

// A9-47: an agent of a task whose row was deleted tried its host key for ever.
func TestATaskThatIsForgottenWhileItRunsJoinsAnew(t *testing.T) {
	s, path := newServer(t), ownFolder(t)
	ways, aws := s.byRole(t)
	first, e, err := s.enter(t, path, ways)
	if err != nil || first.ID.Path() != "/signet/agent/one" {
		t.Fatalf("%v, %v", first, err)
	}
	if again, err := e.Renew(t.Context()); err != nil || again.ID != first.ID || aws.Asked.Load() != 1 {
		t.Errorf("known: %v, %v, and AWS was asked %d times", again, err, aws.Asked.Load())
	}
	s.forget("two")
	next, err := e.Renew(t.Context())
	if err != nil || next.ID.Path() != "/signet/agent/two" || aws.Asked.Load() != 2 {
		t.Fatalf("forgotten: %v, %v, and AWS was asked %d times", next, err, aws.Asked.Load())
	}
	s.forget("three")
	s.tasks = false
	if _, err := e.Renew(t.Context()); status.Code(err) != codes.PermissionDenied || !errors.Is(err, ErrOwnEvidence) {
		t.Errorf("its role is refused: %v", err)
	}
	s.tasks = true
	if _, err := e.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	if back, _, err := s.enter(t, path, ways); err != nil || back.ID.Path() != "/signet/agent/three" || aws.Asked.Load() != 4 {
		t.Errorf("started again: %v, %v, and AWS was asked %d times", back, err, aws.Asked.Load())
	}
}

// A host's agent is deleted by an operator, who wants it out.
func TestAHostThatIsForgottenWhileItRunsStaysOut(t *testing.T) {
	s := newServer(t)
	_, e, err := s.enter(t, ownFolder(t), s.byToken())
	if err != nil {
		t.Fatal(err)
	}
	s.forget("two")
	if _, err := e.Renew(t.Context()); status.Code(err) != codes.Unauthenticated {
		t.Errorf("%v", err)
	}
}
