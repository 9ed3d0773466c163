package meshtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/agent/answered"
	"signet.example/api"
	"signet.example/proxy/answers"
)

// AnsweredKinds are of as many kinds as a FullDay has answers of.
const AnsweredKinds = 20

// FullDay is what an agent keeps that has kept answers of its proxies for a day, in each minute
// of AnsweredKinds kinds from three callers at five nodes, and has no room left.
type FullDay struct {
	Kinds          []answers.Kind
	Callers, Nodes []string // as explain takes them
}

// FillDay writes one into the data_dir of the World's agent, which does not run; it joined before.
func (w *World) FillDay() FullDay {
	w.T.Helper()
	f := FullDay{Kinds: answers.All()[:AnsweredKinds]}
	for i := range 5 {
		f.Nodes = append(f.Nodes, fmt.Sprint("test/n", i))
	}
	for i := range 3 {
		f.Callers = append(f.Callers, fmt.Sprint("test/c", i))
	}
	day, n := answered.New(answered.Bytes), 0
	for at := time.Now().Add(-24*time.Hour + 10*time.Minute); at.Before(time.Now()); at = at.Add(time.Minute) {
		for i, node := range f.Nodes {
			for _, caller := range f.Callers {
				for _, kind := range f.Kinds {
					n++
					day.Add(&api.Decision{
						Id: fmt.Sprintf("%032x", n), Time: timestamppb.New(at), Kind: kind.Name, Status: 503, Method: "GET", Proxy: fmt.Sprint("p", i),
						Source: "spiffe://" + w.TD + "/" + caller, Destination: "spiffe://" + w.TD + "/" + node,
						Host: node + ".internal", Path: fmt.Sprint("/orders/", n), Message: kind.Cause, Peer: "10.1.2.3:4711",
					})
				}
			}
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	stop() // it writes at its end
	if err := day.Keep(ctx, filepath.Join(w.Dir, "agent-data"), slog.New(slog.DiscardHandler)); err != nil {
		w.T.Fatal(err)
	}
	return f
}

// AwaitDay waits until the agent, which was started meanwhile, has read it.
func (w *World) AwaitDay(f FullDay) {
	w.T.Helper()
	w.Await("what was answered is read", 60*time.Second, func() error {
		if found, _ := w.Explain(f.Callers[0], f.Nodes[0], f.Kinds[0].Name); !found {
			return errors.New("the first kind is not found")
		}
		return nil
	})
}

// Explain asks for one kind, by the command, and tells how long that took, as a whole.
func (w *World) Explain(caller, node, kind string, when ...string) (found bool, took time.Duration) {
	w.T.Helper()
	began := time.Now()
	out, stderr, code := w.CLISplit(append([]string{"explain", "-o", "json", "--from", caller, "--to", node}, when...)...)
	took = time.Since(began)
	if code != 0 {
		w.T.Fatalf("explain: exit %d: %s%s", code, out, stderr)
	}
	return hasKind(w.T, out, kind), took
}

// hasKind looks for an answer of a kind, with what to do about it.
func hasKind(t testing.TB, out, kind string) bool {
	t.Helper()
	var answer struct {
		Decisions []struct{ Kind, Cure string }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	for _, d := range answer.Decisions {
		if d.Kind == kind {
			return d.Cure != ""
		}
	}
	return false
}
