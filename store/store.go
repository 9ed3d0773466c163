package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"signet.example/internal/private"
	"signet.example/internal/watched"

	"modernc.org/sqlite" // pure Go SQLite; registers the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Store is the embedded database.
type Store struct {
	path string
	// write has one connection, so that writers queue here and not on SQLite's
	// lock; read has a few and cannot write.
	write, read *sql.DB
	revision    watched.Value[uint64] // last committed
	joined      watched.Value[uint64] // agents that were put since it was opened

	closed chan struct{}
	once   sync.Once
}

// Create makes a database at path, mode 0600, and opens it. What is there
// already is refused, whatever it is.
func Create(ctx context.Context, path string) (*Store, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("create store %s: %w", path, err)
	}
	s, err := open(ctx, path, true)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return s, nil
}

// Open opens the database that Create made. A missing or empty file is an
// error: a control plane that silently starts from nothing would look healthy
// and have forgotten every ban.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := usable(path); err != nil {
		return nil, err
	}
	return open(ctx, path, false)
}

// usable returns why a database is not even opened.
func usable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("open store %s: the database must already exist: %w", path, err)
		}
		return fmt.Errorf("open store: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("open store %s: not a regular file", path)
	}
	if err := private.Secret(path, uint32(os.Geteuid())); err != nil { //nolint:gosec // a uid has 32 bits
		return fmt.Errorf("open store: %w", err)
	}
	return nil
}

func open(ctx context.Context, path string, fresh bool) (_ *Store, err error) {
	s := &Store{path: path, closed: make(chan struct{})}
	defer func() {
		if err != nil {
			_ = s.closeDBs() // the error that matters is the one returned
		}
	}()
	if s.write, err = connect(path, 1, "_txlock=immediate"); err != nil {
		return nil, err
	}
	if err = migrate(ctx, s.write, fresh); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if s.read, err = connect(path, 4, "_pragma=query_only(1)"); err != nil {
		return nil, err
	}
	var revision uint64
	if err = s.read.QueryRowContext(ctx, `SELECT revision FROM counter`).Scan(&revision); err != nil {
		return nil, fmt.Errorf("open store %s: read revision: %w", path, err)
	}
	s.revision.Set(revision)
	return s, nil
}

// connect opens a pool. synchronous=FULL makes a commit in WAL mode durable
// before it returns; NORMAL would lose the last ones at a power cut.
func connect(path string, conns int, extra string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: strings.Join([]string{
		"mode=rw", // never create
		"_pragma=busy_timeout(5000)",
		"_pragma=journal_mode(WAL)",
		"_pragma=synchronous(FULL)",
		"_pragma=foreign_keys(1)",
		"_pragma=trusted_schema(0)",
		extra,
	}, "&")}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Close waits for running transactions. Waiters return.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.closeDBs()
}

func (s *Store) closeDBs() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// update runs f in one writing transaction. Nothing of it stays if f fails.
func (s *Store) update(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.placed(err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if err := f(tx); err != nil {
		return s.placed(err)
	}
	return s.placed(tx.Commit())
}

// placed is an error with the file where it is the disk's, such as one that is full: whoever is
// to make room has to know where.
func (s *Store) placed(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && slices.Contains(ofDisk, e.Code()&0xff) {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return err
}

// ofDisk are SQLite's codes for what is wrong with a disk or file.
var ofDisk = []int{sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT}

// isConstraint reports whether an error is a violated UNIQUE or PRIMARY KEY.
func isConstraint(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_CONSTRAINT
}
