package server_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"signet.example/api"
)

// A batch of 1 MiB became 80 MiB of objects, before it was refused.
func TestABatchFullOfNothingTakesNoMemoryOfTheServer(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	works := func() {
		t.Helper()
		if res, err := h.issue("job"); err != nil || res[0].GetError() != "" {
			t.Errorf("what is meant: %v, %v", res, err)
		}
	}
	works() // until then a connection may have little under way
	req := &api.IssueRequest{}
	req.ProtoReflect().SetUnknown(bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), nil), 500_000))
	made := func() int {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.TotalAlloc) //nolint:gosec // below a terabyte
	}
	const calls = 20
	before := made()
	for range calls {
		if _, err := h.api().Issue(t.Context(), req); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "too many or too small parts") {
			t.Fatal(err)
		}
	}
	took := made() - before
	t.Logf("%d MiB were allocated for %d MiB", took>>20, calls)
	if took > calls*12<<20 { // of 80 each; the client is in this process, too
		t.Errorf("%d MiB were allocated for %d messages", took>>20, calls)
	}
	works()
}

// Its message is no message at all: whoever decoded it would say so.
func TestACallOfWhoIsNoAgentIsRefusedBeforeItsMessageIsDecoded(t *testing.T) {
	r := newRig(t)
	req := &api.IssueRequest{}
	req.ProtoReflect().SetUnknown([]byte{0x0c})
	client := api.NewAgentAPIClient(dial(t, r.addr.Agents, selfSigned(t), nil))
	if _, err := client.Issue(t.Context(), req); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	if rows := rowsOf(t, "issue"); len(rows) != 1 || !strings.Contains(rows[0], "refused: ") {
		t.Errorf("audit: %q", rows)
	}
}
