package server_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/server"
	"signet.example/server/issuance"
	"signet.example/server/signer"
	"signet.example/store"
)

// logFiles are the issuance log of a data directory and the mark beside it.
type logFiles map[string][]byte

func copyLog(t *testing.T, dataDir string) logFiles {
	t.Helper()
	files := logFiles{}
	for _, name := range []string{"issuance.log", "issuance.mark"} {
		content, err := os.ReadFile(filepath.Join(dataDir, "ca", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = content
	}
	return files
}

// putBack replaces the files, as somebody does who restores a backup or hides what
// was issued. A signer that has them open goes on with the old ones until it ends.
func (f logFiles) putBack(t *testing.T, dataDir string) {
	t.Helper()
	for name, content := range f {
		path := filepath.Join(dataDir, "ca", name)
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

// killSigner kills the signer that this process started as a server.
func killSigner(t *testing.T) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		pids, _ := os.ReadFile(list) // a thread that is gone has no children
		for pid := range strings.FieldsSeq(string(pids)) {
			cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline") // it may have ended
			n, err := strconv.Atoi(pid)
			if err == nil && bytes.Contains(cmdline, []byte("\x00signer\x00")) {
				if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
	}
	t.Fatal("there is no signer")
}

var acceptCode = regexp.MustCompile(`--accept-log (\d+-\d+-[0-9a-f]{8})`)

// TestAServerIssuesNothingByALogThatLostItsEnd puts an older log and mark back, so
// that the signer itself has nothing to see it by.
func TestAServerIssuesNothingByALogThatLostItsEnd(t *testing.T) {
	r := newRigWith(t, server.Run)
	r.apply(registry)
	h := r.join("front")
	old := copyLog(t, r.cfg.DataDir)
	if _, err := h.issue("job"); err != nil {
		t.Fatal(err)
	}
	old.putBack(t, r.cfg.DataDir)
	killSigner(t)
	var err error
	eventually(t, "the cut log is seen", func() bool {
		var results []*api.SVIDResult
		if results, err = h.issue("job"); err == nil && len(results[0].GetChain()) > 0 {
			t.Fatal("a certificate was issued by a log that lost its end")
		}
		return err != nil && strings.Contains(err.Error(), "records are missing from the signer's issuance log")
	})
	wantCode(t, err, codes.Unavailable, "and this server has seen record")
	found := r.findings("SIG023", "")
	if len(found) != 1 || acceptCode.FindString(found[0].GetFix()) == "" || len(r.findings("SIG017", "")) != 0 {
		t.Fatalf("check: %v", found)
	}
	r.halt()
	if err := r.run(t.Context(), r.cfg, testLog(t)); err == nil || !strings.Contains(err.Error(), found[0].GetFix()) {
		t.Fatalf("a start: %v", err)
	}
	r.cfg.AcceptLog = acceptCode.FindStringSubmatch(found[0].GetFix())[1]
	r.start()
	h.conn = dial(t, r.addr.Agents, h.svid, nil, grpc.WithPerRPCCredentials(h.instance))
	if results, err := h.issue("job"); err != nil || len(results[0].GetChain()) == 0 {
		t.Errorf("after the operator accepted: %v", err)
	}
	if found := r.findings("SIG023", ""); len(found) != 0 {
		t.Errorf("check, accepted: %v", found)
	}
	r.halt()
	s, err := store.Open(t.Context(), filepath.Join(r.cfg.DataDir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.AuditTrail(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(fmt.Sprint(rows), "accept-log the issuance log ends at record") {
		t.Errorf("audit trail: %v", rows)
	}
	old.putBack(t, r.cfg.DataDir)
	if err := r.run(t.Context(), r.cfg, testLog(t)); err == nil || !acceptCode.MatchString(err.Error()) || strings.Contains(err.Error(), r.cfg.AcceptLog) {
		t.Errorf("one acceptance let pass another loss: %v", err)
	}
}

// cutSigner is a signer whose log lacks what was seen. It answers calls that it
// refuses only when two have come, so that both were made before either's answer.
type cutSigner struct {
	api.UnimplementedSignerServer
	head    *api.LogPosition
	refused sync.WaitGroup
}

func (s *cutSigner) Issue(_ context.Context, req *api.SignRequest) (*api.SignResponse, error) {
	if !proto.Equal(req.GetSeen(), s.head) {
		s.refused.Done()
		s.refused.Wait()
		return nil, status.Error(codes.FailedPrecondition, "records are missing")
	}
	return &api.SignResponse{Log: s.head}, nil
}

func (s *cutSigner) Authority(_ context.Context, req *api.AuthorityRequest) (*api.AuthorityResponse, error) {
	if seen := req.GetSeen(); seen != nil && !proto.Equal(seen, s.head) {
		return nil, status.Error(codes.FailedPrecondition, "records are missing")
	}
	return &api.AuthorityResponse{Log: s.head}, nil
}

func TestCallsThatAreRefusedAtOnceAreServedByOneAcceptance(t *testing.T) {
	s, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.PutLogMark(t.Context(), store.LogMark{Sequence: 9, Hash: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	cut := &cutSigner{head: &api.LogPosition{Sequence: 5, Hash: bytes.Repeat([]byte{5}, 32)}}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	api.RegisterSignerServer(g, cut)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(l) }) // ends by Stop
	defer serving.Wait()
	defer g.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	mark, err := s.LogMark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issuance.Ask(t.Context(), signer.NewClient(conn), mark, ""); err == nil || !acceptCode.MatchString(err.Error()) {
		t.Errorf("--check: %v", err)
	}
	code := ""
	for range 2 { // without the operator's word, and with it
		w, err := issuance.NewWitness(t.Context(), signer.NewClient(conn), s, code, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		var errs [2]error
		cut.refused.Add(len(errs))
		var calls sync.WaitGroup
		for n := range errs {
			calls.Go(func() { _, errs[n] = w.Issue(t.Context(), nil) })
		}
		calls.Wait()
		for _, err := range errs {
			if code == "" && (err == nil || !acceptCode.MatchString(issuance.StartFix(err).Error())) || code != "" && err != nil {
				t.Errorf("with --accept-log %q: %v", code, err)
			}
		}
		if code == "" {
			code = acceptCode.FindStringSubmatch(issuance.StartFix(errs[0]).Error())[1]
		}
	}
}
