package agent_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
)

// TestANewEntryDoesNotChangeAWorkloadsDefaultIdentity asks as an application does
// that takes the first, and as one that chooses by the hint.
func TestANewEntryDoesNotChangeAWorkloadsDefaultIdentity(t *testing.T) {
	made := func(e *api.Entry, since uint64, hint string) *api.Entry {
		e.Since, e.Hint = since, hint
		return e
	}
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{made(entry("web", "/shop/web", self(t)), 5, "internal"), made(entry("zoo", "/shop/zoo", self(t)), 5, "")}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	addr := workloadapi.WithAddr("unix://" + filepath.Join(r.dir, "workload.sock"))
	var all []*x509svid.SVID
	ids := func() (list []string) {
		for _, s := range all {
			list = append(list, s.ID.Path())
		}
		return list
	}
	fetch := func() {
		t.Helper()
		var err error
		if all, err = workloadapi.FetchX509SVIDs(ctx, addr); err != nil && status.Code(err) != codes.Unavailable { // it may have nothing yet
			t.Fatal(err)
		}
	}
	r.await("two identities", func() bool { fetch(); return len(all) == 2 })
	if !slices.Equal(ids(), []string{"/shop/web", "/shop/zoo"}) {
		t.Errorf("of one revision: %v, want them by name", ids())
	}
	r.change(func(f *fakeServer) {
		f.entries = append(f.entries, made(entry("a-new-one", "/shop/batch", self(t)), 9, "batch"), made(binding("a-proxy", "web2", self(t)), 7, ""))
	})
	r.await("four identities", func() bool { fetch(); return len(all) == 4 })
	if !slices.Equal(ids(), []string{"/shop/web", "/shop/zoo", "/shop/web2", "/shop/batch"}) {
		t.Errorf("%v: a new one is not the last", ids())
	}
	if all[0].Hint != "internal" || all[3].Hint != "batch" || all[1].Hint != "" {
		t.Errorf("hints %q %q %q", all[0].Hint, all[1].Hint, all[3].Hint)
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(addr), workloadapi.WithDefaultX509SVIDPicker(func(svids []*x509svid.SVID) *x509svid.SVID {
		return svids[max(0, slices.IndexFunc(svids, func(s *x509svid.SVID) bool { return s.Hint == "batch" }))]
	}))
	if err != nil {
		t.Fatal(err)
	}
	svid, err := source.GetX509SVID()
	if err != nil || svid.ID.Path() != "/shop/batch" {
		t.Errorf("by its hint: %v, %v", svid, err)
	}
	if err := source.Close(); err != nil {
		t.Error(err)
	}
}
