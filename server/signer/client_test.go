package signer_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/server/signer"
)

func TestAServerOfAnotherVersionIsUnderstoodOrToldSo(t *testing.T) {
	p, err := startSigner(t, signerDir(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		profile api.Profile
		name    string
		want    string
	}{
		{api.Profile_PROFILE_UNSPECIFIED, "workload", ""},
		{api.Profile_PROFILE_WORKLOAD, "workload", ""},
		{api.Profile_PROFILE_WORKLOAD, "", ""},
		{api.Profile_PROFILE_AGENT, "workload", "not an identity of profile"}, // the name is for those who know no better
		{api.Profile_PROFILE_UNSPECIFIED, "", "run one version of both"},
		{api.Profile_PROFILE_UNSPECIFIED, "other", `profile "other" is not known`},
		{99, "workload", "update the signer"},
	} {
		item := signItem(t, "/shop/web")
		item.Profile, item.ProfileName = c.profile, c.name
		resp, err := p.Client().Issue(t.Context(), &api.SignRequest{Items: []*api.SignItem{item}})
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.GetResults()[0].GetError(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %q: want %q: %s", c.profile, c.name, c.want, got)
		}
	}
}

// olderSigner knows profiles by their names.
type olderSigner struct{ api.UnimplementedSignerServer }

func (olderSigner) Issue(_ context.Context, req *api.SignRequest) (*api.SignResponse, error) {
	resp := &api.SignResponse{}
	for _, item := range req.GetItems() {
		resp.Results = append(resp.Results, &api.SignResult{Error: item.GetProfileName()})
	}
	return resp, nil
}

func (olderSigner) ReadLog(_ *api.ReadLogRequest, stream grpc.ServerStreamingServer[api.LogRecord]) error {
	return errors.Join(
		stream.Send(&api.LogRecord{KindName: "reserved", ProfileName: "agent"}),
		stream.Send(&api.LogRecord{KindName: "authority"}),
	)
}

// remoteOf is a connection to a service that runs until the test ends.
func remoteOf(t *testing.T, service api.SignerServer) *signer.Remote {
	t.Helper()
	path := filepath.Join(shortDir(t), "s.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	api.RegisterSignerServer(g, service)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s, err := signer.DialAny("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // nothing is under way
	return s
}

func TestASignerOfTheVersionBeforeServesOn(t *testing.T) {
	s := remoteOf(t, olderSigner{})
	req := &api.SignRequest{Items: []*api.SignItem{{Profile: api.Profile_PROFILE_SERVER}, {Profile: api.Profile_PROFILE_AGENT}}}
	resp, err := s.Client().Issue(t.Context(), req)
	if err != nil || resp.GetResults()[0].GetError() != "server" || resp.GetResults()[1].GetError() != "agent" {
		t.Errorf("it was told %v, %v", resp.GetResults(), err)
	}
	var profiles []api.Profile
	var kinds []api.RecordKind
	err = s.Client().ReadLog(t.Context(), 0, false, func(r *api.LogRecord) error {
		profiles, kinds = append(profiles, r.GetProfile()), append(kinds, r.GetKind())
		return nil
	})
	if want := []api.Profile{api.Profile_PROFILE_AGENT, api.Profile_PROFILE_UNSPECIFIED}; err != nil || !slices.Equal(profiles, want) {
		t.Errorf("want %s: %s, %v", want, profiles, err)
	}
	if want := []api.RecordKind{api.RecordKind_RECORD_KIND_RESERVED, api.RecordKind_RECORD_KIND_AUTHORITY}; !slices.Equal(kinds, want) {
		t.Errorf("want %s: %s", want, kinds)
	}
}

// shortSigner leaves the last result out.
type shortSigner struct{ olderSigner }

func (s shortSigner) Issue(ctx context.Context, req *api.SignRequest) (*api.SignResponse, error) {
	resp, err := s.olderSigner.Issue(ctx, req)
	resp.Results = resp.GetResults()[1:]
	return resp, err
}

func TestAnAnswerWithAResultTooFewIsAnError(t *testing.T) {
	c := remoteOf(t, shortSigner{}).Client()
	resp, err := c.Issue(t.Context(), &api.SignRequest{Items: []*api.SignItem{{}, {}, {}}})
	if err == nil || !strings.Contains(err.Error(), "2 results for 3 requests") || resp != nil {
		t.Errorf("%v, %v", resp, err)
	}
}
