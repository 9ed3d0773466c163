package wayout

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"signet.example/attestation"
	"signet.example/proxy"
)

// ownersRig are owners whose listeners the test says, by port.
type ownersRig struct {
	*owners
	t      *testing.T
	listen map[uint16][]attestation.SocketOwner
}

func newOwnersRig(t *testing.T, file string) *ownersRig {
	t.Helper()
	r := &ownersRig{t: t, listen: map[uint16][]attestation.SocketOwner{}}
	known, err := readKnown(file)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	r.owners = newOwners(newMemory(file, known, log), log, func() {})
	r.listeners = func(at netip.AddrPort) ([]attestation.SocketOwner, error) { return r.listen[at.Port()], nil }
	return r
}

const theBinding = "web-proxy"

var theFront = front{node: "mesh/shop/virtualNode/web", app: proxy.Place{Addr: netip.MustParseAddr("127.0.0.1")}, ports: "8080, 8443"}

// may asks for a caller of a user, as if nothing had been asked for a while.
func (r *ownersRig) may(uid uint32) error {
	r.mu.Lock()
	clear(r.recent)
	r.mu.Unlock()
	return r.allows(theFront, theBinding, attestation.SocketOwner{UID: uid})
}

func (r *ownersRig) expect(what string, uid uint32, reason string) {
	r.t.Helper()
	err := r.may(uid)
	got := ""
	if n, ok := err.(*notAllowed); ok { //nolint:errorlint // as it is made
		got = n.reason
	}
	if got != reason || (err == nil) != (reason == "") {
		r.t.Errorf("%s: %v, want %q", what, err, reason)
	}
	if err != nil && !strings.Contains(err.Error(), "Binding web-proxy") {
		r.t.Errorf("%s: %v does not say what to do", what, err)
	}
}

func user(uids ...uint32) []attestation.SocketOwner {
	var out []attestation.SocketOwner
	for _, uid := range uids {
		out = append(out, attestation.SocketOwner{UID: uid})
	}
	return out
}

func TestTheApplicationIsTheOneOwnerOfAllListeners(t *testing.T) {
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "applications.json"))
	r.expect("nobody listens yet", 1000, reasonNoOwner)
	r.listen[8080] = user(1000, 1001)
	r.expect("two on one port", 1000, reasonNoOwner)
	r.listen[8080], r.listen[8443] = user(1000), user(1001)
	r.expect("two on two ports", 1000, reasonNoOwner)
	r.listen[8080], r.listen[8443] = user(65534), nil
	r.expect("somebody without a number", 65534, reasonNoOwner)
	r.listen[8080] = user(1000, 1000)
	r.expect("one, with two workers", 1000, "")
	r.expect("another user", 1001, reasonNotTheirs)
	r.expect("root is another user, too", 0, reasonNotTheirs)
	r.listen[8443] = user(1000)
	r.expect("on both ports", 1000, "")
	r.listen[8443] = user(1001)
	r.expect("two, later", 1000, reasonNoOwner)
}

func TestAnAddressThatIsNotHereShowsNobodyAndMakesNobodyForgotten(t *testing.T) {
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "applications.json"))
	here := r.listeners
	away := func(netip.AddrPort) ([]attestation.SocketOwner, error) { return nil, attestation.ErrElsewhere }
	r.listeners = away
	r.expect("of an address that was never here", 1000, reasonNoOwner)
	r.listeners, r.listen[8080] = here, user(1000)
	r.expect("the application", 1000, "")
	r.listeners, r.listen[8080] = away, nil
	// An earlier release remembered whoever listened at every address.
	r.expect("who was remembered, while its address is elsewhere", 1000, reasonNoOwner)
	r.listeners = here
	r.expect("the application, whose address is here again", 1000, "")
}

func TestANewOwnerIsRefusedAlsoAfterARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "applications.json")
	r := newOwnersRig(t, file)
	r.listen[8080] = user(1000)
	r.expect("the first", 1000, "")
	r.listen[8080] = nil
	r.expect("it calls while it does not listen", 1000, "")
	r.listen[8080] = user(1001)
	for _, again := range []string{"at once", "after a restart"} {
		r.expect("who took its port, "+again, 1001, reasonNewOwner)
		r.expect("whose port was taken, "+again, 1000, reasonNewOwner)
		listen := r.listen
		r = newOwnersRig(t, file)
		r.listen = listen
	}
	r.listen[8080] = user(1000)
	r.expect("the first is back", 1000, "")

	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readKnown(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("half a file is as good as none: %v", err)
	}
}

func TestWhatCannotBeRememberedIsNotServed(t *testing.T) {
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "missing", "applications.json"))
	r.listen[8080] = user(1000)
	if err := r.may(1000); err == nil {
		t.Error("served by a memory that a restart loses")
	}
}

func TestARestartOfTheSameServiceIsNotAnotherOwner(t *testing.T) {
	docker := func(digit string) string { return "/system.slice/docker-" + strings.Repeat(digit, 64) + ".scope" }
	const web, cron = "/system.slice/web.service", "/system.slice/cron.service"
	for name, tc := range map[string]struct {
		before, now owner
		same        bool
	}{
		"the same":                              {owner{1000, web}, owner{1000, web}, true},
		"a container made anew":                 {owner{1000, docker("a")}, owner{1000, docker("b")}, true},
		"a service in a container made anew":    {owner{1000, docker("a") + web}, owner{1000, docker("b") + web}, true},
		"another service in a container":        {owner{1000, docker("a") + web}, owner{1000, docker("b") + cron}, false},
		"a container, now as another user":      {owner{1000, docker("a")}, owner{1001, docker("b")}, false},
		"a container's user, now in a service":  {owner{1000, docker("a")}, owner{1000, web}, false},
		"a container's user, now in no unit":    {owner{1000, docker("a")}, owner{1000, ""}, false},
		"a dynamic user's service":              {owner{61200, web}, owner{61201, web}, true},
		"a dynamic user's number, reused":       {owner{61200, web}, owner{61200, cron}, false},
		"a dynamic user's number, in no unit":   {owner{61200, web}, owner{61200, ""}, false},
		"a dynamic user's, now as a user":       {owner{61200, web}, owner{1000, web}, false},
		"a user, now as a service":              {owner{1000, ""}, owner{1000, web}, true},
		"a user's job, now another user's":      {owner{1000, cron}, owner{1001, cron}, false},
		"a user's job, now root's":              {owner{1000, cron}, owner{0, cron}, false},
		"a user's service, now another service": {owner{1000, web}, owner{1000, cron}, false},
		"a user's service, now in no unit":      {owner{1000, web}, owner{1000, ""}, false},
		"another user, outside of a unit":       {owner{1000, ""}, owner{1001, ""}, false},
		"another user in another service":       {owner{1000, web}, owner{1001, "/system.slice/x.service"}, false},
		"another user in no unit any more":      {owner{1000, web}, owner{1001, ""}, false},
	} {
		if got := tc.now.follows(tc.before); got != tc.same {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// unitsOf are cgroups by id; what is not among them cannot be found.
type unitsOf struct {
	units    map[uint64]string
	err      error // of a search for what is not there
	mu       sync.Mutex
	searches int
}

func (u *unitsOf) Units(ids []uint64) (map[uint64]string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.searches++
	out, err := map[uint64]string{}, error(nil)
	for _, id := range ids {
		if unit, ok := u.units[id]; ok {
			out[id] = unit
		} else if id != 0 {
			err = u.err
		}
	}
	return out, err
}

func (u *unitsOf) In(unit string, id uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return unit != "" && u.units[id] == unit
}

func TestAUnitThatCannotBeSeenWidensNothing(t *testing.T) {
	const web, cron, session, gone, untold = 11, 12, 13, 99, 0
	file := filepath.Join(t.TempDir(), "applications.json")
	units := &unitsOf{units: map[uint64]string{web: "/system.slice/web.service", cron: "/system.slice/cron.service", session: ""}, err: errors.New("interrupted")}
	r := newOwnersRig(t, file)
	r.cgroups = units
	listens := func(uid uint32, cgroup uint64) {
		r.listen[8080] = []attestation.SocketOwner{{UID: uid, Cgroup: cgroup}}
	}
	expect := func(what string, uid uint32, cgroup uint64, reason string) {
		t.Helper()
		clear(r.recent)
		got := ""
		if n, ok := errors.AsType[*notAllowed](r.allows(theFront, theBinding, attestation.SocketOwner{UID: uid, Cgroup: cgroup})); ok {
			got = n.reason
		}
		if got != reason {
			t.Errorf("%s: %q, want %q", what, got, reason)
		}
	}
	listens(1000, gone)
	expect("the first, after a search that could not be finished", 1000, web, reasonNoOwner)
	units.err = nil
	listens(61200, gone)
	expect("a dynamic user without its service", 61200, gone, reasonNoOwner)
	listens(1000, web)
	expect("the service", 1000, web, "")
	expect("its user outside of it", 1000, session, reasonNotTheirs)
	expect("its user in a cgroup that is gone", 1000, gone, reasonNotTheirs)
	for name, err := range map[string]error{"cgroup that is gone": nil, "search that could not be finished": errors.New("interrupted")} {
		units.err = err
		listens(1000, gone)
		expect("the service, after a "+name, 1000, web, "")
		expect("its user outside of it, after a "+name, 1000, session, reasonNotTheirs)
		expect("its user in a cgroup that is gone, after a "+name, 1000, gone, reasonNotTheirs)
		listens(1001, gone)
		expect("another user, after a "+name, 1001, gone, reasonNewOwner)
		listens(1000, untold)
		expect("the service, while the kernel does not tell, and a "+name, 1000, web, "")
		expect("its user, of whom the kernel does not tell, and a "+name, 1000, untold, reasonNotTheirs)
	}
	listens(1000, session)
	expect("its user, who has taken its port", 1000, session, reasonNewOwner)
	listens(1001, web)
	expect("another user of its unit", 1001, web, reasonNewOwner)
	listens(1000, cron)
	expect("another unit of its user", 1000, cron, reasonNewOwner)
	listens(1000, web)
	expect("the service again", 1000, web, "")
	known, err := readKnown(file)
	if want := (owner{1000, "/system.slice/web.service"}); err != nil || known[theFront.node+"@127.0.0.1"] != want {
		t.Errorf("remembered: %v, %v", known, err)
	}
}

func TestAPortThatCannotBeSeenMakesNoSecondOwner(t *testing.T) {
	const web, cron, gone = 11, 12, 99
	units := &unitsOf{units: map[uint64]string{web: "/system.slice/web.service", cron: "/system.slice/cron.service"}}
	r := newOwnersRig(t, filepath.Join(t.TempDir(), applicationsFile))
	r.cgroups = units
	listen := func(one, other uint64) {
		r.listen[8080], r.listen[8443] = []attestation.SocketOwner{{UID: 1000, Cgroup: one}}, []attestation.SocketOwner{{UID: 1000, Cgroup: other}}
	}
	for _, first := range []struct{ one, other uint64 }{{web, gone}, {gone, web}} {
		listen(first.one, first.other)
		r.expect("nobody is known yet", 1000, reasonNoOwner)
	}
	listen(web, web)
	expect := func(what, reason string) {
		t.Helper()
		clear(r.recent)
		n, _ := errors.AsType[*notAllowed](r.allows(theFront, theBinding, attestation.SocketOwner{UID: 1000, Cgroup: web}))
		if (n == nil) != (reason == "") || n != nil && n.reason != reason {
			t.Errorf("%s: %v, want %q", what, n, reason)
		}
	}
	expect("the service", "")
	for name, err := range map[string]error{"is gone": nil, "cannot be searched for": errors.New("interrupted")} {
		units.err = err
		listen(web, gone)
		expect("the other's cgroup "+name, "")
		listen(gone, web)
		expect("the first's cgroup "+name, "")
		listen(gone, cron)
		expect("beside another service, a cgroup "+name, reasonNewOwner)
	}
	listen(web, cron)
	expect("two services", reasonNoOwner)
}

func TestAnApplicationWithoutAUserIsNotUserZero(t *testing.T) {
	file := filepath.Join(t.TempDir(), applicationsFile)
	for content, ok := range map[string]bool{
		`{}`: true, `{"a": {"uid": 0}}`: true, `{"a": {"uid": 1000, "unit": "/system.slice/web.service"}}`: true,
		`null`: false, `{"a": {}}`: false, `{"a": null}`: false, `{"a": {"uid": null}}`: false, `{"a": {"user": 1000}}`: false,
		`{"a": {"uid": 1000, "unti": "/x.service"}}`: false, `{"a": {"uid": -1}}`: false, `{"a": {"unit": "/x.service"}}`: false, ``: false,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if known, err := readKnown(file); (err == nil) != ok || ok && known == nil {
			t.Errorf("%s: %v, %v", content, known, err)
		}
	}
}

func TestAFileOfApplicationsThatCannotBeReadIsLoggedOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), applicationsFile)
	r := newOwnersRig(t, file)
	var lines bytes.Buffer
	r.memory.log = slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelError}))
	said := func(what string, times int) {
		t.Helper()
		if got := strings.Count(lines.String(), "cannot be read"); got != times {
			t.Errorf("%s: %d lines, want %d: %s", what, got, times, &lines)
		}
	}
	r.listen[8080] = user(1000)
	r.expect("the first", 1000, "")
	r.expect("the first again", 1000, "")
	said("a good file", 0)
	edit := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit("{,")
	r.expect("after a slip", 1000, "")
	r.expect("and again", 1000, "")
	said("a slip", 1)
	edit(`{"` + theFront.node + `@127.0.0.1": {"uid": 1001}}`)
	r.expect("mended", 1000, reasonNewOwner)
	edit("{,")
	r.expect("another slip", 1000, reasonNewOwner)
	said("another slip", 2)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.expect("no file", 1000, reasonNewOwner)
	said("no file", 3)
}

// A command that is stopped keeps its lock.
func TestWhoKeepsTheFileOfApplicationsLockedStopsNoQuestionForLong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, applicationsFile)
	r := newOwnersRig(t, file)
	r.listen[8080] = user(1000)
	r.expect("the first", 1000, "")
	unlock, err := lockFile(file, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var waiting sync.WaitGroup
	for i := range 50 {
		waiting.Go(func() {
			f := theFront
			f.node += strconv.Itoa(i)
			if err := r.allows(f, theBinding, attestation.SocketOwner{UID: 1000}); err == nil || !strings.Contains(err.Error(), "locked") {
				t.Errorf("%v", err)
			}
		})
	}
	r.expect("who is known", 1000, "")
	waiting.Wait()
	if took := time.Since(start); took > 10*rememberWaits {
		t.Errorf("50 questions took %s", took)
	}
	unlock()
	for i := range 50 {
		waiting.Go(func() {
			f := theFront
			f.node += strconv.Itoa(i)
			r.mu.Lock()
			delete(r.recent, f)
			r.mu.Unlock()
			if err := r.allows(f, theBinding, attestation.SocketOwner{UID: 1000}); err != nil {
				t.Error(err)
			}
		})
	}
	waiting.Wait()
	if known, err := readKnown(file); err != nil || len(known) != 51 || len(r.memory.known) != 51 {
		t.Errorf("%d and %d of 51 are remembered: %v", len(known), len(r.memory.known), err)
	}
}

func TestAStrangersConnectionsCostNoSearchAndOneProxyKeepsNoOtherWaiting(t *testing.T) {
	units := &unitsOf{units: map[uint64]string{11: "/system.slice/web.service"}}
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "applications.json"))
	r.cgroups = units
	r.listen[8080] = []attestation.SocketOwner{{UID: 1000, Cgroup: 11}}
	for i := range uint64(1000) {
		_ = r.allows(theFront, theBinding, attestation.SocketOwner{UID: 1001, Cgroup: 1000 + i}) // refused
	}
	if took := units.searches; took > 10 {
		t.Errorf("1000 connections of a stranger took %d searches", took)
	}

	slow, release, asked := theFront, make(chan struct{}), make(chan struct{}, 100)
	slow.node, slow.ports = "mesh/shop/virtualNode/slow", "9090"
	r.listeners = func(at netip.AddrPort) ([]attestation.SocketOwner, error) {
		if at.Port() == 9090 {
			asked <- struct{}{}
			<-release
		}
		return []attestation.SocketOwner{{UID: 1000, Cgroup: 11}}, nil
	}
	var waiting sync.WaitGroup
	for range 50 {
		waiting.Go(func() {
			if err := r.allows(slow, theBinding, attestation.SocketOwner{UID: 1000, Cgroup: 11}); err != nil {
				t.Error(err)
			}
		})
	}
	<-asked
	done := make(chan error, 1)
	go func() { done <- r.allows(theFront, theBinding, attestation.SocketOwner{UID: 1000, Cgroup: 11}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for what is looked up for another proxy")
	}
	close(release)
	waiting.Wait()
	if more := len(asked); more > 2 { // a second may pass meanwhile
		t.Errorf("50 questions at once took %d lookups", more+1)
	}
}

func TestWhoIsRememberedMeanwhileIsNotReplaced(t *testing.T) {
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "applications.json"))
	if err := r.memory.remember("node@127.0.0.1", false, owner{}, owner{UID: 0}); err != nil {
		t.Fatal(err)
	}
	if err := r.memory.remember("node@127.0.0.1", false, owner{}, owner{UID: 1001}); err == nil {
		t.Error("two were the first")
	}
}

func TestANodeWithoutListenersIsToldToNameItsApplication(t *testing.T) {
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "applications.json"))
	client := theFront
	client.ports = ""
	err := r.allows(client, theBinding, attestation.SocketOwner{UID: 1000})
	if err == nil || !strings.Contains(err.Error(), "no listener") || !strings.Contains(err.Error(), "applications of Binding web-proxy") {
		t.Errorf("%v", err)
	}
}

func TestAnOperatorAcceptsANewOwnerWhileTheAgentRuns(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, applicationsFile)
	r := newOwnersRig(t, file)
	r.listen[8080] = user(1000)
	r.expect("the first", 1000, "")
	other := theFront
	other.node = "mesh/shop/virtualNode/orders"
	if err := r.allows(other, theBinding, attestation.SocketOwner{UID: 1000}); err != nil {
		t.Fatal(err)
	}
	r.listen[8080] = user(1001)
	r.expect("a new one", 1001, reasonNewOwner)
	name := theFront.node + "@127.0.0.1"
	if err := r.may(1001); err == nil || !strings.Contains(err.Error(), "signet agent owners accept '"+name+"' --uid 1001 --data-dir '"+dir+"'") {
		t.Errorf("%v does not say how to accept it", err)
	}
	accept := func(a Application) error { return Accept(dir, a) }
	for what, wrong := range map[string]Application{
		"another node":               {Name: theFront.node + "x@127.0.0.1", UID: 1001},
		"no name":                    {UID: 1001},
		"a unit that is no path":     {Name: name, UID: 1001, Unit: "web.service"},
		"a dynamic user, no service": {Name: name, UID: dynamicFirst},
	} {
		if err := accept(wrong); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
	r.expect("nothing was accepted", 1001, reasonNewOwner)
	if err := accept(Application{Name: name, UID: 1002}); err != nil {
		t.Fatal(err)
	}
	r.expect("another was accepted", 1001, reasonNewOwner)
	if err := accept(Application{Name: name, UID: 1001}); err != nil {
		t.Fatal(err)
	}
	r.expect("it was accepted", 1001, "")
	r.expect("who it was before", 1000, reasonNotTheirs)
	r.listen[8080] = user(1000)
	r.expect("the first is the new one now", 1000, reasonNewOwner)
	list, err := Applications(dir)
	if err != nil || len(list) != 2 || list[1] != (Application{Name: name, UID: 1001}) || list[0].UID != 1000 {
		t.Errorf("%+v, %v", list, err)
	}
	// What is remembered later does not take it back.
	other.node = "mesh/shop/virtualNode/stock"
	if err := r.allows(other, theBinding, attestation.SocketOwner{UID: 1000}); err != nil {
		t.Fatal(err)
	}
	if again, err := readKnown(file); err != nil || again[name].UID != 1001 || len(again) != 3 {
		t.Errorf("%+v, %v", again, err)
	}
}

// Local users choose the names of their own units.
func TestNoCommandToPasteHasWhatAShellReads(t *testing.T) {
	o := newMemory("/var/lib/signet-agent/applications.json", nil, slog.New(slog.DiscardHandler))
	for unit, ok := range map[string]bool{
		"": true, "/system.slice/web.service": true, `/system.slice/web\x2dapp.service`: true, "/a/$(id).service": true, "/a;id.service": true,
		"/a/x'$(id)'.service": false, "/a/x y.service": false, "/a/x\n.service": false, "/a/x\u202e.service": false,
	} {
		line := o.acceptLine("mesh/shop/virtualNode/web@127.0.0.1", owner{1001, unit})
		if (line != "") != ok || ok && unit != "" && !strings.Contains(line, " --unit '"+unit+"'") {
			t.Errorf("%q: %s", unit, line)
		}
	}
}

// An Envoy that the agent did not start says where its application is.
func TestTheAddressesThatAProxyMakesUpFillNoRoomOfAnotherNode(t *testing.T) {
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "applications.json"))
	r.listen[8080] = user(1000)
	other := theFront
	other.node = "mesh/shop/virtualNode/third"
	refused := 0
	for n := range maxAddressesOfNode + 10 {
		other.app.Addr = netip.AddrFrom4([4]byte{127, 0, 1, byte(n)})
		if err := r.allows(other, theBinding, attestation.SocketOwner{UID: 1000}); err != nil {
			if refused++; !strings.Contains(err.Error(), "signet agent owners list") {
				t.Error(err)
			}
		}
	}
	if refused != 10 {
		t.Errorf("%d addresses of one node are refused, want 10", refused)
	}
	r.expect("another node's first", 1000, "")
}
