package main

import (
	"bytes"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/proxy/answers"
)

// followed is a server that has two decisions, one after the other, and stops.
type followed struct {
	api.UnimplementedAdminServer

	asked []*api.DecisionsListRequest
}

func (f *followed) FollowDecisions(req *api.DecisionsListRequest, s grpc.ServerStreamingServer[api.FollowDecisionsResponse]) error {
	f.asked = append(f.asked, req)
	for _, m := range []*api.FollowDecisionsResponse{
		{Decisions: []*api.Decision{{Id: "1"}}, Silent: []string{"h-1", "h-2"}}, {Decisions: []*api.Decision{{Id: "2"}}},
	} {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "the server is stopping")
}

func TestDecisionsAreFollowedByOneCallUntilTheServerEndsIt(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server, g := &followed{}, grpc.NewServer()
	api.RegisterAdminServer(g, server)
	go func() { _ = g.Serve(l) }() // until the test is over
	t.Cleanup(g.Stop)
	c := newDecisions()
	var out, errOut bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&errOut)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs([]string{"--socket", socket, "--follow", "--denied", "-o", "name"})
	if err := c.ExecuteContext(t.Context()); exitCode(err) != exitUnreachable {
		t.Errorf("it ends with %v", err)
	}
	if out.String() != "1\n2\n" || errOut.String() != "no answer in time from h-1, h-2: their decisions are missing\n" {
		t.Errorf("it shows\n%s%s", &out, &errOut)
	}
	if len(server.asked) != 1 || server.asked[0].GetFilter().GetResult() != api.DecisionFilter_DENIED {
		t.Errorf("it asks %v", server.asked)
	}
}

// What is to be done of a denial is said as a command: it shows what is said that it shows.
func TestWhatIsToBeDoneOfADenialShowsTheRulesByFileAndLine(t *testing.T) {
	v := viewOf(&api.DecisionsListResponse{})
	for _, k := range answers.All() {
		command, _, says := strings.Cut(k.Cure, "` has the rules by file and line")
		if !says {
			continue
		}
		if shown := slices.Contains(v.header, "rule") || strings.HasSuffix(command, " -o wide") && slices.Contains(v.wide, "rule"); !shown {
			t.Errorf("%s: %s`: no column of it has the rules", k.Name, command)
		}
		return
	}
	t.Error("no kind says which command has the rules")
}
