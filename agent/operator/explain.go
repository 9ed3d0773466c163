package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"signet.example/agent/local"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/scrape"
	"signet.example/internal/watched"
)

// Config of an Explainer: what the Workload API decides by.
type Config struct {
	Attestor  *attestation.Attestor
	State     *watched.Value[*resources.Snapshot]
	Keeper    *svids.Keeper
	Connected *watched.Value[bool]
	// Check is what an Entry or a Binding may ask of processes here.
	Check resources.Check
	Log   *slog.Logger
}

// Explainer reports what the agent sees of a process and what it would give it.
type Explainer struct {
	Config

	// asking has a place for each question that is looked into at a time: one looks at all
	// processes of the host.
	asking chan struct{}
}

// mostAsking is of questions at a time.
const mostAsking = 4

// NewExplainer returns one.
func NewExplainer(cfg Config) *Explainer {
	return &Explainer{Config: cfg, asking: make(chan struct{}, mostAsking)}
}

// Serve serves it until ctx ends.
func (e *Explainer) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", e.answer)
	return scrape.Serve(ctx, l, mux, e.Log)
}

// mostTime is what one answer may take: less than the server waits for it to be read.
const mostTime = 8 * time.Second

func (e *Explainer) answer(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), mostTime)
	defer cancel()
	select {
	case e.asking <- struct{}{}:
		defer func() { <-e.asking }()
	case <-ctx.Done():
		http.Error(w, "too many ask at once", http.StatusServiceUnavailable)
		return
	}
	q := r.URL.Query()
	pid, err := strconv.Atoi(q.Get(local.PID))
	if err != nil {
		http.Error(w, local.PID+": want a process id", http.StatusBadRequest)
		return
	}
	if err := sameNamespace(q.Get(local.Namespace)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p, err := e.Look(ctx, pid, q.Get(local.Others) == "true")
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(p) // whoever has left does not wait for it
}

// sameNamespace refuses a question from another PID namespace: the same number is another
// process there.
func sameNamespace(theirs string) error {
	ours, err := local.PIDNamespace()
	if err == nil && ours != theirs {
		err = fmt.Errorf("process ids of the agent's PID namespace (%s) are not those of whoever asks (%.64q): run the command where the agent runs, as in its container", ours, theirs)
	}
	return err
}

// Look is what the agent sees of a process and would give it if it came now. With others the
// processes of the host are looked at for who else has its selectors.
func (e *Explainer) Look(ctx context.Context, pid int, others bool) (*local.Process, error) {
	peer, err := e.Attestor.Process(pid, true)
	if err != nil {
		return nil, err
	}
	defer func() { _ = peer.Close() }() // a pidfd
	has, err := peer.Selectors(ctx)
	if err != nil {
		return nil, err
	}
	p := &local.Process{PID: pid, Mode: peer.Mode(), UID: peer.UID(), GID: peer.GID(), Missing: missing(has, peer.Mode())}
	for _, s := range has {
		t := traitOf(s)
		p.Selectors = append(p.Selectors, local.Selector{Selector: s.String(), Method: s.Type, Lasts: string(t.Lasts), With: t.With, Others: notCounted})
	}
	proposed := propose(has, e.Check)
	if others && !e.Attestor.Task {
		e.lookAtOthers(ctx, p, &proposed)
	}
	p.Proposed = proposed
	e.explain(p, has)
	return p, peer.Alive() // what is said is of it and of nobody after it
}

// missing is why a process of a host has no selectors of some forms.
func missing(has identity.Selectors, mode string) []string {
	if mode == attestation.ModeTask {
		return nil
	}
	forms := map[string]bool{}
	for _, s := range has {
		forms[attestation.FormOf(s)] = true
	}
	var list []string
	for _, m := range []struct{ form, unless, why string }{
		{"unix:path", "", "what runs is not what its path leads to from the agent: the program was replaced or removed since it was started, or the process is in another mount namespace, as in a container"},
		{"unix:sha256", "", "its program is larger than 1 GiB, or the agent may not read it, or it is on a file system (FUSE) that can show each reader another file"},
		{"systemd:unit", "", "it is in no service of the system's manager: it is in a login session or a container, or there is no systemd"},
		{"systemd:invocation", "systemd:unit", "the agent may not read it, which takes CAP_SYS_ADMIN"},
	} {
		if !forms[m.form] && (m.unless == "" || forms[m.unless]) {
			list = append(list, m.form+": "+m.why)
		}
	}
	return list
}

const (
	// mostNear, mostProblems and mostHas bound an answer.
	mostNear     = 50
	mostProblems = 20
	mostHas      = 8
)

// explain fills in what the process is given, or nearly, and why not.
func (e *Explainer) explain(p *local.Process, has identity.Selectors) {
	state := e.State.Load()
	if state == nil {
		p.Nothing, p.ToDo = resources.ErrNone.Error(), "look whether the agent reaches its server: its log, and signet get agents where the server runs"
		return
	}
	p.TrustDomain = state.TrustDomain.Name()
	p.Problems = state.Problems[:min(len(state.Problems), mostProblems)]
	p.Fitting = e.holdings(state, has)
	p.Near, p.Known = near(state, has)
	p.Nothing, p.ToDo = nothing(p)
}

// nothing is why nothing is given, "" where something is.
func nothing(p *local.Process) (why, toDo string) {
	for _, h := range p.Fitting {
		if h.Given && h.Why == "" {
			return "", ""
		}
	}
	for _, h := range p.Fitting { // all of them have a reason
		return h.Why, "signet check, where the server runs, has what is wrong with certificates and hosts"
	}
	if p.Known == 0 {
		why = "the agent has no Entry and no Binding: there is none for the NodeGroups that this host is in"
	} else {
		why = "no Entry and no Binding of this host's NodeGroups fits"
	}
	return why, fmt.Sprintf("signet workload suggest %d proposes one; those of other NodeGroups are not known here: signet get entries and signet get bindings, where the server runs, have all", p.PID)
}

// objectOf names an entry or binding of a state by what it is among the resources.
func objectOf(state *resources.Snapshot, name string, binding bool) local.Object {
	kind := "Entry"
	if binding {
		kind, name = "Binding", bindingName(name)
	}
	return local.Object{Kind: kind, Name: name, SPIFFEID: state.IDs[resourceName(name, binding)].String()}
}

// holdings are what fits, in the order in which a workload is given it.
func (e *Explainer) holdings(state *resources.Snapshot, has identity.Selectors) []local.Holding {
	names, err := state.Identities(has)
	by := map[string]string{} // the entry of which an identity's SVID is
	rank := map[string]int{}
	for i, n := range names {
		by[n.ID.String()], rank[n.ID.String()] = n.Entry, i
	}
	_, _, noBinding := state.Binding(has, noRef)
	if err == nil {
		err = noBinding
	}
	var list []local.Holding
	add := func(name string, binding bool) {
		h := local.Holding{Object: objectOf(state, name, binding)}
		from, given := by[h.SPIFFEID]
		if h.Given = given; given {
			h.Until, h.Why = e.svid(from)
		} else if err != nil {
			h.Why = err.Error()
		}
		list = append(list, h)
	}
	for _, x := range identity.MatchEntries(state.Entries, has) {
		add(x.Name, false)
	}
	for _, b := range identity.FittingBindings(state.Bindings, has) {
		add(b.Name, true)
	}
	slices.SortStableFunc(list, func(a, b local.Holding) int { return rankOf(rank, a) - rankOf(rank, b) })
	return list
}

func rankOf(rank map[string]int, h local.Holding) int {
	if i, ok := rank[h.SPIFFEID]; ok {
		return i
	}
	return len(rank)
}

// svid is until when the agent has one for an entry, and why it has none. One that nobody has
// asked for yet is issued when somebody does.
func (e *Explainer) svid(entry string) (until time.Time, why string) {
	if s := e.Keeper.Get(entry); s != nil {
		return s.Ends(), ""
	}
	if err := e.Keeper.Failure(entry); err != nil {
		return time.Time{}, "it is not issued: " + err.Error()
	}
	if !e.Connected.Load() {
		return time.Time{}, "it is not issued: the agent is not connected to a server"
	}
	return time.Time{}, ""
}

// notCounted is in the place of how many others have a selector.
const notCounted = -1

// lookAtOthers counts who else has what the process has.
func (e *Explainer) lookAtOthers(ctx context.Context, p *local.Process, proposed *local.Proposal) {
	index := map[string]int{}
	for i, s := range p.Selectors {
		if !strings.HasPrefix(s.Selector, "unix:sha256:") { // others' programs are not read for this
			index[s.Selector], p.Selectors[i].Others = i, 0
		}
	}
	each(ctx, e.Attestor, p.PID, func(pid int, has identity.Selectors) {
		p.Looked++
		fit := 0
		for _, s := range has {
			if i, ok := index[s.String()]; ok {
				p.Selectors[i].Others++
			}
			if slices.Contains(proposed.Selectors, s.String()) {
				fit++
			}
		}
		switch {
		case fit < len(proposed.Selectors) || fit == 0:
		case len(proposed.Fits) < mostFits:
			proposed.Fits = append(proposed.Fits, pid)
		default:
			proposed.FitsMore++
		}
	})
}

// What is looked at of other processes.
const (
	mostFits   = 10
	mostOthers = 4096
	othersTime = 3 * time.Second
)

// each calls f with what others have than the process of except. What cannot be seen, as a
// thread of the kernel, is left out.
func each(ctx context.Context, a *attestation.Attestor, except int, f func(pid int, has identity.Selectors)) {
	ctx, cancel := context.WithTimeout(ctx, othersTime)
	defer cancel()
	all, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	looked := 0
	for _, d := range all {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == except {
			continue
		}
		if looked++; looked > mostOthers || ctx.Err() != nil {
			return
		}
		if peer, err := a.Process(pid, false); err == nil {
			if has, err := peer.Selectors(ctx); err == nil {
				f(pid, has)
			}
			_ = peer.Close() // a pidfd
		}
	}
}

// errUnfit is what a proposal cannot be.
var errUnfit = errors.New("nothing that lasts tells it from others")
