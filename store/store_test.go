package store_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"signet.example/store"
	"signet.example/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func create(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSQLitePassesTheStoreContract(t *testing.T) {
	store.SetPruneBatch(t, 100)
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		return create(t, filepath.Join(t.TempDir(), "odd ?#%41name.db"))
	})
}

func TestAFullDiskIsSaidToBeFullWhereItIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := create(t, path)
	store.Fill(t, s)
	err := s.Audit(t.Context(), "somebody", "Apply", strings.Repeat("x", 1<<20))
	if err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), "full") {
		t.Errorf("err = %v", err)
	}
	if rows, err := s.AuditTrail(t.Context(), 0, 10); err != nil || len(rows) > 0 {
		t.Errorf("%v, %v", rows, err)
	}
}

func TestOpenRefusesAMissingDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.db")
	if _, err := store.Open(t.Context(), path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "must already exist") {
		t.Fatalf("err = %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open made the file: %v", err)
	}
}

func TestOpenRefusesWhatIsNotOurs(t *testing.T) {
	write := func(content string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "x.db")
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	db, err := sql.Open("sqlite", foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE theirs (x)`); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Close(), os.Chmod(foreign, 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"an empty file":      write("", 0o600),
		"garbage":            write(strings.Repeat("garbage!", 1000), 0o600),
		"another program's":  foreign,
		"readable by others": write("", 0o644),
		"a directory":        t.TempDir(),
	} {
		if s, err := store.Open(t.Context(), path); err == nil {
			t.Errorf("%s was opened: %v", name, s.Close())
		}
	}
}

func TestCreateRefusesToOverwriteAndKeepsTheFilePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signet.db")
	s := create(t, path)
	if _, err := s.Apply(t.Context(), "x", "a test", s.Revision(), []store.Write{{Object: store.Object{Kind: "k"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Create(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("err = %v", err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %#o", info.Name(), info.Mode().Perm())
		}
	}
}

func TestWhatWasWrittenIsThereAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signet.db")
	s, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutToken(t.Context(), []byte("h"), "g", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Apply(t.Context(), "x", "a test", s.Revision(), []store.Write{{Object: store.Object{Kind: "k", Name: "n"}}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.UseToken(t.Context(), []byte("h"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	objects, revision, err := s.Objects(t.Context())
	if err != nil || revision != 3 || s.Revision() != 3 || len(objects) != 1 || objects[0].Revision != 3 {
		t.Errorf("revision %d, objects %+v, %v", revision, objects, err)
	}
	if _, err := s.UseToken(t.Context(), []byte("h"), time.Now()); !errors.Is(err, store.ErrToken) {
		t.Errorf("a used token after reopening: %v", err)
	}
}

// exec runs statements on a database that no store has open.
func exec(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenBringsAnOlderSchemaUpToThisOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signet.db")
	s, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for _, manifest := range []string{"1", "2"} {
		if _, err := s.Apply(t.Context(), "tester", "", s.Revision(), []store.Write{{Object: store.Object{Kind: "Entry", Name: "e", Manifest: []byte(manifest)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.PutAgent(t.Context(), store.Agent{ID: "a", Address: "192.0.2.1"}), s.Close()); err != nil {
		t.Fatal(err)
	}
	exec(t, path, `DELETE FROM changes WHERE revision = 1; DROP TABLE used; ALTER TABLE objects DROP COLUMN owner; ALTER TABLE changes DROP COLUMN owner; DROP INDEX changes_of_object; ALTER TABLE changes DROP COLUMN actor; ALTER TABLE counter DROP COLUMN history; ALTER TABLE agents DROP COLUMN address; DROP INDEX agents_evidence; ALTER TABLE agents DROP COLUMN evidence; ALTER TABLE agents DROP COLUMN selectors; ALTER TABLE agents DROP COLUMN method; ALTER TABLE agents DROP COLUMN ban_reason; DROP TABLE log_mark; ALTER TABLE objects DROP COLUMN created; PRAGMA user_version = 1`)
	if s, err = store.Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	agents, err := s.Agents(t.Context())
	if err != nil || len(agents) != 1 || agents[0].ID != "a" || agents[0].Method != "join_token" || agents[0].Selectors != nil || agents[0].Evidence != nil || agents[0].Address != "" {
		t.Errorf("agents %+v, %v", agents, err)
	}
	if objects, _, err := s.Objects(t.Context()); err != nil || len(objects) != 1 || objects[0].Revision != 2 || objects[0].Created != 2 { // what was first is pruned
		t.Errorf("objects %+v, %v", objects, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// What a release before pruned is not taken for what never was.
func TestWhatWasPrunedBeforeHistoryWasKeptIsKnownFromThenOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signet.db")
	s, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if _, err := s.Apply(t.Context(), "tester", "", s.Revision(), []store.Write{{Object: store.Object{Kind: "Entry", Name: name, Manifest: []byte(name)}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("a", "b")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	exec(t, path, `DELETE FROM changes WHERE revision = 1; DROP TABLE used; ALTER TABLE objects DROP COLUMN owner; ALTER TABLE changes DROP COLUMN owner; DROP INDEX changes_of_object; ALTER TABLE changes DROP COLUMN actor; ALTER TABLE counter DROP COLUMN history; PRAGMA user_version = 6`)
	if s, err = store.Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Apply(t.Context(), "tester", "", s.Revision(), []store.Write{{Object: store.Object{Kind: "Entry", Name: "a", Manifest: []byte("new")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Back(t.Context(), 1); !errors.Is(err, store.ErrForgotten) {
		t.Errorf("revision 1: %v", err)
	}
	back, err := s.Back(t.Context(), 2)
	if err != nil || len(back) != 1 || back[0].Name != "a" || string(back[0].Manifest) != "a" || back[0].Delete {
		t.Errorf("revision 2: %+v, %v", back, err)
	}
}

// An object of the release before is nobody's, then and now, until somebody takes it.
func TestWhatWasStoredBeforeThereWereOwnersIsNobodys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signet.db")
	s, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(owner string) {
		t.Helper()
		if _, err := s.Apply(t.Context(), "tester", "", s.Revision(), []store.Write{{Object: store.Object{Kind: "Entry", Name: "e", Manifest: []byte("m"), Owner: owner}}}); err != nil {
			t.Fatal(err)
		}
	}
	put("")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	exec(t, path, `DROP TABLE used; ALTER TABLE objects DROP COLUMN owner; ALTER TABLE changes DROP COLUMN owner; PRAGMA user_version = 7`)
	if s, err = store.Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if objects, _, err := s.Objects(t.Context()); err != nil || len(objects) != 1 || objects[0].Owner != "" {
		t.Errorf("%+v, %v", objects, err)
	}
	put("team")
	if objects, _, err := s.Objects(t.Context()); err != nil || objects[0].Owner != "team" {
		t.Errorf("%+v, %v", objects, err)
	}
	if back, err := s.Back(t.Context(), 1); err != nil || len(back) != 1 || back[0].Owner != "" || back[0].Delete {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestOpenRefusesANewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signet.db")
	s, err := store.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	exec(t, path, `PRAGMA user_version = 999`)
	if _, err := store.Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("err = %v", err)
	}
}

func TestCloseWakesWaiters(t *testing.T) {
	s := create(t, filepath.Join(t.TempDir(), "signet.db"))
	done := make(chan error, 1)
	go func() {
		_, err := s.Wait(context.WithoutCancel(t.Context()), 0)
		done <- err
	}()
	time.Sleep(5 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("Wait returned no error after Close")
	}
}
