package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/proxy"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// crowd has a process of each of so many users hold as many connections to a socket
// as it is let: it comes again where it is cut off. It writes a line when all began.
const crowd = `
use strict; use Socket; use IO::Select;
my ($socket, $users, $first, $each) = @ARGV;
my $parent = $$;
my $to = pack_sockaddr_un($socket);
for my $n (0 .. $users - 1) {
	next if fork;
	$) = "$first $first"; $< = $> = $first + $n;
	my $held = IO::Select->new;
	while (getppid() == $parent) {
		while ($held->count < $each) {
			socket(my $s, PF_UNIX, SOCK_STREAM, 0) or last;
			if (!connect($s, $to)) { close $s; last }
			$held->add($s);
		}
		for my $s ($held->can_read(0.2)) {
			$held->remove($s), close $s unless sysread($s, my $b, 4096);
		}
		select(undef, undef, undef, rand 1);
	}
	exit;
}
syswrite(STDOUT, "all began\n");
<STDIN>;
`

// fill sends a crowd of 200 users to a socket until the test ends.
func fill(t *testing.T, socket string, first int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), parts.Program(t, "perl"), "-e", crowd, socket, "200", strconv.Itoa(first), "24")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its group, which it leads until it is waited for
		_ = in.Close()
		_ = cmd.Wait() // it was killed
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
}

// full reports whether a user of whom nobody knows is turned away at a socket.
func full(t *testing.T, socket string) bool {
	t.Helper()
	a := askAs(t, nobodyUID, question{Do: "xds", Socket: socket, Node: nodeIDs[0]})[0]
	return a.Code == "Unavailable" // let in, it would be told what it may not
}

// crowds: one person has many users, by a container or /etc/subuid. They have no
// way to keep the host's proxies from what they need, whoever starts them.
func crowds(t *testing.T, w *meshtest.World) {
	sockets := []string{w.AgentDir() + "/xds.sock", w.AgentDir() + "/wayout.sock", w.AgentDir() + "/authz.sock"}
	own := question{Do: "xds", Socket: sockets[0], Node: proxy.Node("test", "lone").String()}
	for i, socket := range sockets {
		fill(t, socket, 70_000+1000*i)
	}
	for _, socket := range sockets[:2] { // the third holds nobody's connections
		eventually(t, 10*time.Second, socket+" is full", func() bool { return full(t, socket) })
	}
	for range 5 { // one that the agent does not start
		if a := askAs(t, loneUID, own)[0]; a.Code != "OK" {
			t.Errorf("who is bound is told: %+v", a)
		}
	}
	for _, node := range []string{"front", "orders"} {
		proxies := w.Proxies()
		at := slices.IndexFunc(proxies, func(p *api.ProxyStatus) bool { return p.GetName() == node })
		pid := int(proxies[at].GetPid())
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	w.Await("both proxies again", 20*time.Second, func() error {
		for _, p := range w.Proxies() {
			if p.GetName() != "lone" && (p.GetState() != api.ProxyStatus_READY || p.GetRestarts() == 0) {
				return fmt.Errorf("proxy %s is %s after %d restarts: %s", p.GetName(), p.GetStateWord(), p.GetRestarts(), p.GetReason())
			}
		}
		return nil
	})
	w.AwaitRoute("front", host+"/orders")
	t.Logf("served again after %s", time.Since(begun))
	for _, socket := range sockets[:2] { // of those who wait to be let in one comes first now and then
		eventually(t, 10*time.Second, socket+" is still full", func() bool { return full(t, socket) })
	}
}
