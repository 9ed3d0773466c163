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
	"strings"
)

// Check looks at a database as Open does, reads the whole file, writes nothing, and
// returns its LogMark. A server that uses the database may run meanwhile.
func Check(ctx context.Context, path string) (LogMark, error) {
	if err := usable(path); err != nil {
		return LogMark{}, err
	}
	db, err := look(path)
	if err != nil {
		return LogMark{}, fmt.Errorf("open store %s: %w", path, err)
	}
	defer func() { _ = db.Close() }() // nothing was written
	mark, err := check(ctx, db)
	if err != nil {
		return LogMark{}, fmt.Errorf("open store %s: %w", path, err)
	}
	return mark, nil
}

// look opens a database so that no file of it changes. Where a server runs, or was
// killed, the newest commits are in the log beside the file; of a copy that has this
// log without its index (-shm) the index is made, which the next opening takes over.
func look(path string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	how := "mode=ro&readonly_shm=1"
	if _, err := os.Stat(abs + "-shm"); errors.Is(err, fs.ErrNotExist) {
		how = "mode=ro"
	}
	if _, err := os.Stat(abs + "-wal"); errors.Is(err, fs.ErrNotExist) {
		how = "mode=ro&immutable=1"
	}
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: how + "&_pragma=busy_timeout(5000)&_pragma=query_only(1)&_pragma=trusted_schema(0)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

func check(ctx context.Context, db *sql.DB) (LogMark, error) {
	version, err := schemaOf(ctx, db, false)
	if err != nil {
		return LogMark{}, err
	}
	var wrong string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&wrong); err != nil {
		return LogMark{}, err
	}
	if wrong != "ok" {
		return LogMark{}, fmt.Errorf("the file is damaged: %s", strings.ReplaceAll(wrong, "\n", " "))
	}
	var revision uint64
	if err := db.QueryRowContext(ctx, `SELECT revision FROM counter`).Scan(&revision); err != nil {
		return LogMark{}, fmt.Errorf("read revision: %w", err)
	}
	if version < logMarkSince {
		return LogMark{}, nil
	}
	return logMark(ctx, db)
}
