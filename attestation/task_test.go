package attestation_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"signet.example/attestation"
	"signet.example/identity"
)

func TestInATaskWhoeverOpensTheSocketIsTheTaskAndTheAgentsProxyIsItself(t *testing.T) {
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		var children attestation.Children
		a.Task, a.Supervised, a.Platform = true, children.Supervised, identity.Selectors{{Type: "ecs", Value: "family:shop"}}
		pidfd := -1
		child, conn := s.connect(t, withPidfd(&pidfd))
		defer func() { _ = unix.Close(pidfd) }() // nothing is lost
		p := peerOf(t, a, conn)
		is := func(want string) {
			t.Helper()
			if got := strings.Join(selectors(t, p).Strings(), " "); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		is("signet:unit:task ecs:family:shop")
		remove, err := children.Add(pidfd, "web")
		if err != nil {
			t.Fatal(err)
		}
		is("signet:proxy:web ecs:family:shop")
		remove()
		is("signet:unit:task ecs:family:shop")
		child.order("exec "+s.program, "idle")
		is("signet:unit:task ecs:family:shop") // it is in the task, whatever it runs
		if p.Mode() != attestation.ModeTask {
			t.Errorf("held by %s", p.Mode())
		}
		child.exit()
		if _, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrGone) {
			t.Errorf("of a process that is gone: %v", err)
		}
	})
}

// A9-50: on a kernel without SO_PEERPIDFD whoever connected in the container of the agent, and ended,
// was the proxy that was given its process id.
func TestInATaskTheProxyIsNobodyWhoHadItsPIDAsAnotherUser(t *testing.T) {
	needRoot(t)
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		var children attestation.Children
		a.Task, a.Supervised = true, children.Supervised
		child, conn := s.connect(t, as(nobody))
		pid := child.cmd.Process.Pid
		child.exit()
		proxy, pidfd := as(somebody), -1
		proxy.PidFD = &pidfd
		s.takePID(t, pid, proxy)
		defer func() { _ = unix.Close(pidfd) }() // nothing is lost
		if _, err := children.Add(pidfd, "web"); err != nil {
			t.Fatal(err)
		}
		if p, err := a.Peer(conn); !errors.Is(err, attestation.ErrGone) && !errors.Is(err, attestation.ErrCredentials) {
			t.Errorf("%v, %v, want ErrGone or ErrCredentials", p, err)
		}
		if name, ok := a.Proxy(conn); ok {
			t.Errorf("it counts as proxy %s", name)
		}
	})
}

func TestNoProcessOfAHostIsATask(t *testing.T) {
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		_, conn := s.connect(t, nil)
		if sels := selectors(t, peerOf(t, a, conn)); has(sels, "signet:unit:task") {
			t.Errorf("%v", sels)
		}
	})
}

func TestSelectorsOfProcessesAreRefusedInATask(t *testing.T) {
	for _, c := range []struct {
		selectors string
		binding   bool
		want      string
	}{
		{"signet:unit:task", false, ""},
		{"signet:proxy:web", false, ""},
		{"signet:proxy:web", true, ""},
		{"signet:unit:task", true, "is not served yet"},
		{"unix:uid:1000", false, "a task is attested as a whole"},
		{"signet:proxy:web unix:uid:1000", true, "selector \"unix:uid:1000\" is of one process"},
		{"systemd:unit:web.service", false, "a task is attested as a whole"},
		{"signet:unit:pod", false, "the only unit"},
		{"signet:unit:task ecs:family:web ecs:revision:7", false, ""},
		{"signet:proxy:web ecs:label:team:shop", true, ""},
		{"ecs:family:web", false, "ecs:… is what a task has as a whole: name signet:unit:task beside it"},
		{"ecs:family:web", true, "ecs:… is what a task has as a whole"},
		{"ecs:family:web unix:uid:1000", false, "ecs:… is what a task has as a whole"},
		{"signet:unit:task ecs:family:web", true, "is not served yet"},
		{"signet:unit:task ecs:revision:007", false, "spec.selectors[1]"},
		{"signet:unit:task ecs:label:team", false, "want ecs:label:<name>:<value>"},
	} {
		err := attestation.CheckTask(strings.Fields(c.selectors), c.binding)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, binding %t: %v, want %q", c.selectors, c.binding, err, c.want)
		}
	}
	if err := attestation.CheckWorkload([]string{"signet:unit:task"}); err != nil {
		t.Errorf("an entry could not name a task: %v", err)
	}
}
