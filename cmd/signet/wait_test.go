package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"signet.example/api"
)

// past is a server's that has only this.
type past struct {
	api.AdminClient

	revisions []*api.Revision
	err       error
}

func (p past) History(context.Context, *api.HistoryRequest, ...grpc.CallOption) (*api.HistoryResponse, error) {
	return &api.HistoryResponse{Revisions: p.revisions}, p.err
}

func back(before uint64) func() string {
	return func() string { return takenBack(context.Background(), past{}, before, before+1) }
}

// Who follows a hint undoes nobody's change unknowingly.
func TestAHintToRollBackNamesWhatCameSince(t *testing.T) {
	revision := func(n uint64, names ...string) *api.Revision {
		r := &api.Revision{Revision: n, Actor: fmt.Sprintf("uid %d", n)}
		for _, name := range names {
			r.Changes = append(r.Changes, &api.Change{Action: api.Change_CONFIGURED.Enum(), ActionWord: "configured", Kind: "VirtualNode", Mesh: "shop", Name: name})
		}
		return r
	}
	const all = "; --dry-run shows it, and the files of before applied again take back this change alone"
	for _, c := range []struct {
		past past
		want string
	}{
		{past{revisions: []*api.Revision{revision(7, "web"), revision(6, "web")}}, "`signet rollback 6` takes it back"},
		{
			past{revisions: []*api.Revision{revision(9, "a", "b"), revision(8, "c"), revision(7, "web")}},
			"`signet rollback 6` takes it back, and undoes what came since: revision 9 by uid 9 (configured virtualnode/shop/a, configured virtualnode/shop/b), revision 8 by uid 8 (configured virtualnode/shop/c)" + all,
		},
		{
			past{revisions: []*api.Revision{revision(12), revision(11), revision(10), revision(9), revision(8)}},
			"`signet rollback 6` takes it back, and undoes what came since: revision 12 by uid 12 (), revision 11 by uid 11 (), revision 10 by uid 10 (), 2 more" + all,
		},
		{past{err: errors.New("no")}, "`signet rollback 6` takes it back, with all that was stored since: --dry-run shows it"},
	} {
		if got := takenBack(t.Context(), c.past, 6, 7); got != c.want {
			t.Errorf("%s\nwant\n%s", got, c.want)
		}
	}
}

func TestTheEndOfAWaitNamesWhoRefusedAndWhoDidNotAnswer(t *testing.T) {
	node := &api.VirtualNodeRef{Mesh: "shop", Name: "web"}
	one := func(name string, state api.ProgressResponse_Proxy_State) *api.ProgressResponse_Proxy {
		return &api.ProgressResponse_Proxy{Name: name, Agent: "h-1", Node: node, State: state.Enum()}
	}
	bad := one("bad", api.ProgressResponse_Proxy_REFUSED)
	bad.Refused = []*api.ResourceStatus{{TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener", Name: "lds_ingress", Message: "no such\nfilter\x1b[2J"}}
	away := one("far", api.ProgressResponse_Proxy_WAITING)
	away.Why = "its agent is away"
	const applied, waiting = api.ProgressResponse_Proxy_APPLIED, api.ProgressResponse_Proxy_WAITING
	for _, c := range []struct {
		concerned bool
		proxies   []*api.ProgressResponse_Proxy
		moving    bool
		want, err string
	}{
		{false, nil, false, "no proxy's configuration changes", ""},
		{true, nil, false, "no proxy that it concerns is reported", ""},
		{true, []*api.ProgressResponse_Proxy{one("a", applied)}, false, "1 proxy has it", ""},
		{true, []*api.ProgressResponse_Proxy{one("a", applied), one("b", applied)}, false, "2 proxies have it", ""},
		{true, []*api.ProgressResponse_Proxy{one("a", applied)}, true, "1 proxy has it", "it was still on its way from host to host after 5s"},
		{
			true,
			[]*api.ProgressResponse_Proxy{bad, away, one("late", waiting), one("a", applied)},
			false,
			"proxy bad of shop/web at agent h-1 refused Listener lds_ingress: no such filter\ufffd[2J\n" +
				"proxy far of shop/web at agent h-1 has not answered: its agent is away\n" +
				"proxy late of shop/web at agent h-1 has not answered\n1 proxy has it",
			"1 proxy refused it, 2 proxies did not answer within 5s",
		},
	} {
		answer := &api.ApplyResponse{Revision: 7, Effect: &api.Effect{}, Progress: &api.ProgressResponse{Proxies: c.proxies, Settled: !c.moving}}
		if c.concerned {
			answer.Effect.Nodes = []*api.Effect_Node{{Node: node}}
		}
		var out bytes.Buffer
		if err := showProgress(&out, answer); err != nil || strings.TrimSpace(out.String()) != c.want {
			t.Errorf("%v\n%s\nwant\n%s", err, &out, c.want)
		}
		err := unreached(answer, back(4), 5*time.Second)
		switch {
		case c.err == "" && err == nil:
		case c.err == "" || err == nil || err.Error() != c.err || exitCode(err) != exitFailed:
			t.Errorf("it ends with %v, want %q", err, c.err)
		}
	}
	for action, want := range map[api.Change_Action]string{
		api.Change_CONFIGURED: "it is stored as revision 7, and who refused it goes on with what it had; `signet proxies` shows what each has, `signet rollback 6` takes it back",
		api.Change_UNCHANGED:  "it was stored before, and who refused it goes on with what it had; `signet proxies` shows what each has, `signet history` which revision it came with",
	} {
		var told *exitError
		err := unreached(&api.ApplyResponse{
			Revision: 7, Changes: []*api.Change{{Action: action.Enum()}}, Progress: &api.ProgressResponse{Proxies: []*api.ProgressResponse_Proxy{bad}, Settled: true},
		}, back(6), time.Second)
		if !errors.As(err, &told) || told.hint != want {
			t.Errorf("%v: %v, want %q", action, told, want)
		}
	}
	err := notKnown(&api.ApplyResponse{Revision: 7}, status.Error(codes.Unavailable, "the server is stopping"))
	if exitCode(err) != exitUnreachable || !strings.Contains(err.Error(), "it is stored as revision 7, but") {
		t.Errorf("a server that stops: %v", err)
	}
}

// It ended at once, and the policy that was applied was nowhere.
func TestAWaitSaysThatThePolicyOfASourceIsNotWaitedFor(t *testing.T) {
	for action, want := range map[api.Change_Action]string{
		api.Change_CREATED:    "the policy of policysource/rules is not waited for: its policy is fetched after this, and `signet policy sync rules` fetches",
		api.Change_CONFIGURED: "`signet get agents -o wide` shows under POLICY which revision each agent has loaded",
		api.Change_DELETED:    "the policy of policysource/rules is not waited for: `signet get agents",
		api.Change_UNCHANGED:  "",
	} {
		answer := &api.ApplyResponse{Effect: &api.Effect{}, Changes: []*api.Change{
			{Action: action.Enum(), Kind: "PolicySource", Name: "rules"}, {Action: action.Enum(), Kind: "VirtualNode", Mesh: "shop", Name: "web"},
		}}
		for format, flag := range map[string]string{"text": "", "json": "-o json"} {
			c := &cobra.Command{Use: "apply"}
			outputFlags(c)
			var errs bytes.Buffer
			c.SetOut(new(bytes.Buffer))
			c.SetErr(&errs)
			if err := c.ParseFlags(strings.Fields(flag)); err != nil {
				t.Fatal(err)
			}
			if err := (showing{format: format, most: time.Second}).show(c, past{}, answer); err != nil {
				t.Error(err)
			}
			if said := errs.String(); !strings.Contains(said, want) || (want == "") != (said == "") {
				t.Errorf("%s: it says %q, want %q", api.Word(action), said, want)
			}
		}
	}
}

// says is a server's that says these, and then ends with an error.
type says struct {
	api.AdminClient
	grpc.ServerStreamingClient[api.ProgressResponse]

	list []*api.ProgressResponse
	end  error
}

func (s *says) Progress(context.Context, *api.ProgressRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[api.ProgressResponse], error) {
	return s, nil
}

func (s *says) Recv() (*api.ProgressResponse, error) {
	if len(s.list) == 0 {
		return nil, s.end
	}
	next := s.list[0]
	s.list = s.list[1:]
	return next, nil
}

// A server that takes longer to begin than is waited has said nothing of any proxy.
func TestAWaitThatHeardNothingDoesNotEndWell(t *testing.T) {
	late := status.Error(codes.DeadlineExceeded, "context deadline exceeded")
	has := &api.ProgressResponse{Settled: true, Proxies: []*api.ProgressResponse_Proxy{{Name: "web", State: api.ProgressResponse_Proxy_APPLIED.Enum()}}}
	for name, c := range map[string]struct {
		server says
		want   string
		code   int
	}{
		"nothing in time":     {says{end: late}, "it is stored as revision 7, but whether proxies have it is not known: ", exitUnreachable},
		"nothing, and an end": {says{end: io.EOF}, "it is stored as revision 7, but whether proxies have it is not known: ", exitFailed},
		"all is well":         {says{list: []*api.ProgressResponse{has}, end: io.EOF}, "", exitOK},
		"the last that was":   {says{list: []*api.ProgressResponse{{Settled: false}}, end: late}, "it was still on its way from host to host after 5s", exitFailed},
	} {
		answer := &api.ApplyResponse{Revision: 7, Effect: &api.Effect{Nodes: []*api.Effect_Node{{Node: &api.VirtualNodeRef{Mesh: "shop", Name: "web"}}}}}
		command := &cobra.Command{}
		command.SetContext(t.Context())
		command.SetErr(io.Discard)
		err := waitFor(command, &c.server, answer, 5*time.Second)
		if err == nil {
			err = unreached(answer, back(6), 5*time.Second)
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want) || exitCode(err) != c.code) {
			t.Errorf("%s: %v", name, err)
		}
		if c.code == exitUnreachable && answer.GetProgress().GetSettled() {
			t.Errorf("%s: the document says that nothing is on its way", name)
		}
	}
}

func TestProgressIsALineForEachStepWhereNobodyWatchesAndOneLineOnATerminal(t *testing.T) {
	for terminal, want := range map[bool]string{
		false: "1 of 2\n2 of 2\n",
		true:  "\r\x1b[K1 of 2\r\x1b[K2 of 2\r\x1b[K",
	} {
		var out bytes.Buffer
		p := &progress{w: &out, terminal: terminal}
		for _, text := range []string{"1 of 2", "1 of 2", "2 of 2"} {
			p.say(text)
		}
		if p.end(); out.String() != want {
			t.Errorf("%q, want %q", &out, want)
		}
	}
}

// Several deletions are waited for as one change: who is concerned by two of them is waited for once.
func TestSeveralDeletionsAreWaitedForAsOneChange(t *testing.T) {
	node := func(name string, resources ...string) *api.Effect_Node {
		n := &api.Effect_Node{Node: &api.VirtualNodeRef{Mesh: "shop", Name: name}}
		for _, r := range resources {
			n.Resources = append(n.Resources, &api.Effect_Resource{Name: r})
		}
		return n
	}
	both := bothConcern(&api.Effect{Nodes: []*api.Effect_Node{node("web", "a")}}, &api.Effect{Nodes: []*api.Effect_Node{node("web", "b"), node("api", "c")}})
	want := &api.Effect{Nodes: []*api.Effect_Node{node("web", "a", "b"), node("api", "c")}}
	enforced := node("web")
	enforced.Authorization = "enforce"
	if n := bothConcern(&api.Effect{Nodes: []*api.Effect_Node{node("web", "a")}}, &api.Effect{Nodes: []*api.Effect_Node{enforced}}).GetNodes(); len(n) != 1 || n[0].GetAuthorization() != "enforce" {
		t.Errorf("%v", n)
	}
	if !proto.Equal(both, want) {
		t.Errorf("%v, want %v", both, want)
	}
	if bothConcern(both, nil) != nil || bothConcern(nil, both) != nil {
		t.Error("what a server does not tell of one is told of both")
	}
	refused := &api.ProgressResponse_Proxy{State: api.ProgressResponse_Proxy_REFUSED.Enum()}
	err := unreached(&api.ApplyResponse{
		Revision: 7, Changes: []*api.Change{{Action: api.Change_DELETED.Enum()}}, Progress: &api.ProgressResponse{Settled: true, Proxies: []*api.ProgressResponse_Proxy{refused}},
	}, back(4), time.Second)
	if e, ok := errors.AsType[*exitError](err); !ok || !strings.Contains(e.hint, "`signet rollback 4`") {
		t.Errorf("%v does not say how the first of them is taken back", err)
	}
}
