package operator_test

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/local"
	"signet.example/agent/operator"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/watched"
)

var domain = spiffeid.RequireTrustDomainFromString("test.example")

// explainer is one that has these entries and bindings; nil is one that has nothing yet.
func explainer(t *testing.T, snapshot *resources.Snapshot) *operator.Explainer {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg := operator.Config{
		Attestor: &attestation.Attestor{}, State: &watched.Value[*resources.Snapshot]{}, Connected: &watched.Value[bool]{},
		Keeper: svids.NewKeeper(nil, svids.NewMetrics(prometheus.NewRegistry()), log), Check: resources.OfProcesses, Log: log,
	}
	if snapshot != nil {
		cfg.State.Set(snapshot)
	}
	return operator.NewExplainer(cfg)
}

func parsed(t *testing.T, list ...string) identity.Selectors {
	t.Helper()
	s, err := identity.ParseSelectors(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// snapshot has an Entry of each name, with selectors, and Bindings of the virtual nodes of "shop".
func snapshot(t *testing.T, entries, bindings map[string][]string) *resources.Snapshot {
	t.Helper()
	s := &resources.Snapshot{TrustDomain: domain, IDs: map[string]spiffeid.ID{}}
	for name, want := range entries {
		s.IDs[name] = spiffeid.RequireFromPathf(domain, "/%s", name)
		s.Entries = append(s.Entries, identity.Entry{Name: name, ID: s.IDs[name], Selectors: parsed(t, want...)})
	}
	for name, want := range bindings {
		s.IDs["binding/"+name] = spiffeid.RequireFromPathf(domain, "/shop/%s", name)
		s.Bindings = append(s.Bindings, identity.Binding{Name: "binding/" + name, VirtualNode: identity.VirtualNodeName{Mesh: "shop", Name: name}, Selectors: parsed(t, want...)})
	}
	return s
}

func look(t *testing.T, e *operator.Explainer) *local.Process {
	t.Helper()
	p, err := e.Look(t.Context(), os.Getpid(), false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func uid() string { return "unix:uid:" + strconv.Itoa(os.Geteuid()) }

func TestTheNearestComesFirstAndSaysWhatDiffers(t *testing.T) {
	other, foreign := "unix:uid:"+strconv.Itoa(os.Geteuid()+1), "unix:path:/usr/bin/other"
	p := look(t, explainer(t, snapshot(t,
		map[string][]string{"far": {other, foreign, "systemd:unit:x.service"}, "close": {other}, "unlike": {"systemd:slice:x.slice"}},
		map[string][]string{"half": {uid(), foreign}})))
	var got []string
	for _, n := range p.Near {
		for _, d := range n.Differs {
			got = append(got, fmt.Sprintf("%s %s: %s, has %s", n.Kind, n.Name, d.Wants, strings.Join(d.Has, " ")))
		}
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Binding half: " + foreign + ", has unix:path:" + exe,
		"Entry close: " + other + ", has " + uid(),
		"Entry unlike: systemd:slice:x.slice, has ",
		"Entry far: " + other + ", has " + uid(),
		"Entry far: " + foreign + ", has unix:path:" + exe,
		"Entry far: systemd:unit:x.service, has ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if p.Known != 4 || !strings.HasPrefix(p.Nothing, "no Entry and no Binding of this host's NodeGroups fits") || !strings.Contains(p.ToDo, "signet workload suggest") {
		t.Errorf("known %d, %q, %q", p.Known, p.Nothing, p.ToDo)
	}
}

func TestWhyNothingIsGivenIsSaidOfEachCause(t *testing.T) {
	for name, c := range map[string]struct {
		state *resources.Snapshot
		want  string
	}{
		"nothing from the server": {nil, resources.ErrNone.Error()},
		"no Entry at all":         {snapshot(t, nil, nil), "there is none for the NodeGroups that this host is in"},
		"none fits":               {snapshot(t, map[string][]string{"x": {"unix:path:/x"}}, nil), "of this host's NodeGroups fits"},
		"two Bindings fit":        {snapshot(t, nil, map[string][]string{"a": {uid()}, "b": {uid()}}), "so it gets neither"},
		"no server":               {snapshot(t, map[string][]string{"x": {uid()}}, nil), "not connected to a server"},
	} {
		if p := look(t, explainer(t, c.state)); !strings.Contains(p.Nothing, c.want) || p.ToDo == "" {
			t.Errorf("%s: %q, to do %q; want %q", name, p.Nothing, p.ToDo, c.want)
		}
	}
	e := explainer(t, snapshot(t, map[string][]string{"x": {uid()}}, map[string][]string{"a": {uid()}, "b": {uid()}}))
	e.Connected.Set(true)
	p := look(t, e)
	if p.Nothing != "" || len(p.Fitting) != 3 || !p.Fitting[0].Given || p.Fitting[0].Name != "x" || p.Fitting[1].Given || !strings.Contains(p.Fitting[1].Why, "so it gets neither") {
		t.Errorf("an Entry beside two Bindings: %+v, nothing: %q", p.Fitting, p.Nothing)
	}
}

func TestWhatIsProposedLastsAndCanBeAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		has  []string
		want local.Proposal
		note string
	}{
		"a service": {
			[]string{"unix:uid:7", "unix:gid:7", "unix:path:/usr/bin/python3.12", "systemd:unit:orders.service", "systemd:slice:system.slice", "systemd:invocation:0123456789abcdef0123456789abcdef"},
			local.Proposal{Name: "orders", Selectors: []string{"unix:uid:7", "systemd:unit:orders.service"}},
			"",
		},
		"a program": {[]string{"unix:uid:7", "unix:path:/opt/my web"}, local.Proposal{Name: "my-web", Selectors: []string{"unix:uid:7", "unix:path:/opt/my web"}}, ""},
		"a script":  {[]string{"unix:uid:7", "unix:path:/usr/bin/python3.12"}, local.Proposal{Name: "python3.12", Selectors: []string{"unix:uid:7", "unix:path:/usr/bin/python3.12"}}, "runs others' files"},
		"a user's manager": {
			[]string{"unix:uid:7", "unix:path:/opt/web", "systemd:unit:user@7.service"},
			local.Proposal{Name: "web", Selectors: []string{"unix:uid:7", "unix:path:/opt/web"}},
			"the user's own manager",
		},
		"nothing but its user": {[]string{"unix:uid:7", "unix:gid:7"}, local.Proposal{Name: "user-7", Selectors: []string{"unix:uid:7"}}, "nothing that lasts tells it from others"},
		"root":                 {[]string{"unix:uid:0", "unix:path:/opt/web"}, local.Proposal{Name: "web", Selectors: []string{"unix:uid:0", "unix:path:/opt/web"}}, "runs as root"},
		"a proxy of ours":      {[]string{"unix:uid:7", "unix:path:/opt/envoy", "signet:proxy:web-1"}, local.Proposal{Name: "web-1", Selectors: []string{"signet:proxy:web-1"}, Binding: true}, ""},
		"a task": {
			[]string{"signet:unit:task", "ecs:cluster:c", "ecs:family:orders", "ecs:revision:7"},
			local.Proposal{Name: "orders", Selectors: []string{"signet:unit:task", "ecs:cluster:c", "ecs:family:orders"}},
			"",
		},
	} {
		got := operator.Propose(parsed(t, c.has...), resources.OfProcesses)
		notes := strings.Join(got.Notes, "; ")
		if got.Name != c.want.Name || !slices.Equal(got.Selectors, c.want.Selectors) || got.Binding != c.want.Binding || !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
			t.Errorf("%s: %+v, want %+v and %q", name, got, c.want, c.note)
		}
	}
}

// The socket's own file lets no other user in; where it does, as to root of a container whose
// folder it shares, the process at the other end is looked at.
func TestTheSocketIsForRootAndTheAgentsOwnUser(t *testing.T) {
	for _, c := range []struct {
		uid uint32
		own int
		may bool
	}{{0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {0, 0, true}, {65534, 0, false}} {
		if got := operator.MayAsk(c.uid, c.own); got != c.may {
			t.Errorf("user %d of an agent of user %d: %v", c.uid, c.own, got)
		}
	}
	dir, err := os.MkdirTemp("", "op")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := operator.Listen(t.Context(), dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, name := range []string{local.ProcessSocket, local.StopSocket} {
		if info, err := os.Stat(dir + "/" + name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
}

func TestAnAnswerGoesOverTheSocketAndAnotherNamespaceIsRefused(t *testing.T) {
	dir, err := os.MkdirTemp("", "op")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := operator.Listen(t.Context(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	e := explainer(t, snapshot(t, map[string][]string{"x": {"unix:path:/x"}}, nil))
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(t.Context(), l.Process) }()
	p, err := local.Look(t.Context(), dir, os.Getpid(), true)
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != os.Getpid() || len(p.Near) != 1 || p.Looked == 0 || len(p.Proposed.Selectors) == 0 {
		t.Errorf("got %+v", p)
	}
	if err := operator.SameNamespace("pid:[1]"); err == nil || !strings.Contains(err.Error(), "run the command where the agent runs") {
		t.Errorf("of another PID namespace: %v", err)
	}
	l.Close()
	if err := <-ended; err == nil {
		t.Error("it goes on without its socket")
	}
}

func TestEachSelectorThatAProcessCanHaveHasATrait(t *testing.T) {
	for text, want := range map[string]operator.Trait{
		"unix:uid:1000":                {Form: "unix:uid", Lasts: "stable", With: "all processes of the user"},
		"unix:sha256:00":               {Form: "unix:sha256", Lasts: "release", With: "whoever may execute the program"},
		"systemd:unit:web.service":     {Form: "systemd:unit", Lasts: "stable"},
		"systemd:unit:user@10.service": {Form: "systemd:unit", Lasts: "stable", With: "all processes that the user's own manager started"},
		"systemd:invocation:00":        {Form: "systemd:invocation", Lasts: "start"},
		"k8s:pod-uid:a":                {Form: "k8s:pod-uid", Lasts: "start"},
		"k8s:pod-image-count:2":        {Form: "k8s:pod-image-count", Lasts: "release", With: "all pods with so many containers"},
		"unheard:of:it":                {Lasts: "start"},
	} {
		if got := operator.TraitOf(parsed(t, text)[0]); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	for _, form := range []string{"unix:uid:1", "unix:gid:1", "unix:path:/x", "systemd:unit:a.service", "systemd:slice:a.slice", "signet:proxy:x", "signet:unit:task", "ecs:cluster:c", "ecs:family:f", "ecs:container:c", "ecs:label:a:b"} {
		if got := operator.TraitOf(parsed(t, form)[0]); got.Lasts != "stable" {
			t.Errorf("%s: %+v", form, got)
		}
	}
}
