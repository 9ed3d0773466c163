package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// applicationID marks the file as Signet's ("Sgnt"), so that another program's
// database is never migrated.
const applicationID = 0x53676e74

// migrations are applied in order, each in its own transaction that also sets
// user_version. A released one is never edited; a change is a new one.
var migrations = []string{
	// 1: the first schema. Times are Unix nanoseconds.
	`CREATE TABLE counter (
		one      INTEGER PRIMARY KEY CHECK (one = 1),
		revision INTEGER NOT NULL
	) STRICT;
	INSERT INTO counter VALUES (1, 0);

	CREATE TABLE objects (
		kind     TEXT NOT NULL,
		mesh     TEXT NOT NULL,
		name     TEXT NOT NULL,
		manifest BLOB NOT NULL,
		revision INTEGER NOT NULL,
		PRIMARY KEY (kind, mesh, name)
	) STRICT, WITHOUT ROWID;

	CREATE TABLE changes (
		revision INTEGER NOT NULL,
		ordinal  INTEGER NOT NULL,
		kind     TEXT NOT NULL,
		mesh     TEXT NOT NULL,
		name     TEXT NOT NULL,
		manifest BLOB NOT NULL,
		deleted  INTEGER NOT NULL,
		at       INTEGER NOT NULL,
		PRIMARY KEY (revision, ordinal)
	) STRICT, WITHOUT ROWID;

	CREATE TABLE tokens (
		hash    BLOB PRIMARY KEY,
		grp     TEXT NOT NULL,
		expires INTEGER NOT NULL,
		used    INTEGER
	) STRICT, WITHOUT ROWID;

	CREATE TABLE agents (
		id       TEXT PRIMARY KEY,
		grp      TEXT NOT NULL,
		hostname TEXT NOT NULL,
		host_key BLOB NOT NULL UNIQUE,
		joined   INTEGER NOT NULL,
		banned   INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;

	CREATE TABLE policy_revisions (
		revision INTEGER PRIMARY KEY,
		id       TEXT NOT NULL,
		source   TEXT NOT NULL,
		commit_  TEXT NOT NULL,
		body     BLOB NOT NULL,
		at       INTEGER NOT NULL
	) STRICT;

	CREATE TABLE audit (
		sequence INTEGER PRIMARY KEY AUTOINCREMENT,
		at       INTEGER NOT NULL,
		actor    TEXT NOT NULL,
		action   TEXT NOT NULL,
		detail   TEXT NOT NULL
	) STRICT;`,

	// 2: why an agent was banned.
	`ALTER TABLE agents ADD COLUMN ban_reason TEXT NOT NULL DEFAULT ''`,

	// 3: how far the signer's issuance log was seen.
	`CREATE TABLE log_mark (
		one      INTEGER PRIMARY KEY CHECK (one = 1),
		sequence INTEGER NOT NULL,
		hash     BLOB NOT NULL
	) STRICT`,

	// 4: the revision in which an object was first there. What is older than this has
	// the oldest that is known.
	`ALTER TABLE objects ADD COLUMN created INTEGER NOT NULL DEFAULT 0;
	UPDATE objects SET created = min(revision, coalesce((SELECT min(c.revision) FROM changes c
		WHERE c.kind = objects.kind AND c.mesh = objects.mesh AND c.name = objects.name AND c.revision >
			coalesce((SELECT max(d.revision) FROM changes d WHERE d.kind = objects.kind AND d.mesh = objects.mesh AND d.name = objects.name AND d.deleted), 0)), revision))`,

	// 5: by which evidence an agent joined. Before, there were tokens alone.
	`ALTER TABLE agents ADD COLUMN method TEXT NOT NULL DEFAULT 'join_token';
	ALTER TABLE agents ADD COLUMN selectors TEXT NOT NULL DEFAULT '';
	ALTER TABLE agents ADD COLUMN evidence BLOB NOT NULL DEFAULT x'';
	CREATE UNIQUE INDEX agents_evidence ON agents (method, evidence) WHERE evidence <> x''`,

	// 6: from where an agent joined. Of those before it is not known.
	`ALTER TABLE agents ADD COLUMN address TEXT NOT NULL DEFAULT ''`,

	// 7: who changed an object, and from which revision on it is known what there was: what
	// was pruned before this is not. An object has a row from then on, however old it is.
	`ALTER TABLE changes ADD COLUMN actor TEXT NOT NULL DEFAULT '';
	CREATE INDEX changes_of_object ON changes (kind, mesh, name, revision);
	ALTER TABLE counter ADD COLUMN history INTEGER NOT NULL DEFAULT 0;
	UPDATE counter SET history = CASE WHEN coalesce((SELECT min(revision) FROM changes), 1) > 1 THEN revision ELSE 0 END;
	INSERT INTO changes (revision, ordinal, kind, mesh, name, manifest, deleted, at)
		SELECT revision, 1000000 + row_number() OVER (ORDER BY kind, mesh, name), kind, mesh, name, manifest, 0, 0 FROM objects o
		WHERE NOT EXISTS (SELECT 1 FROM changes c WHERE c.kind = o.kind AND c.mesh = o.mesh AND c.name = o.name AND c.revision = o.revision)`,

	// 8: whose an object is, then and now. Of those before it is nobody's.
	`ALTER TABLE objects ADD COLUMN owner TEXT NOT NULL DEFAULT '';
	ALTER TABLE changes ADD COLUMN owner TEXT NOT NULL DEFAULT ''`,

	// 9: evidence of hosts that is good once and was used, for as long as it could be used again.
	`CREATE TABLE used (
		hash  BLOB PRIMARY KEY,
		until INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX used_until ON used (until)`,
}

// logMarkSince is the schema that has log_mark first.
const logMarkSince = 3

// migrate brings the schema up to this version.
func migrate(ctx context.Context, db *sql.DB, fresh bool) error {
	version, err := schemaOf(ctx, db, fresh)
	if err != nil {
		return err
	}
	for ; version < len(migrations); version++ {
		if err := migrateOne(ctx, db, version); err != nil {
			return fmt.Errorf("migrate to schema %d: %w", version+1, err)
		}
	}
	return nil
}

// schemaOf returns the version of a database's schema. A newer one is refused: an
// older program would write rows that the newer one does not expect.
func schemaOf(ctx context.Context, db *sql.DB, fresh bool) (version int, _ error) {
	var app, tables int
	for _, q := range []struct {
		query string
		into  *int
	}{
		{`PRAGMA application_id`, &app},
		{`PRAGMA user_version`, &version},
		{`SELECT count(*) FROM sqlite_schema`, &tables},
	} {
		if err := db.QueryRowContext(ctx, q.query).Scan(q.into); err != nil {
			return 0, fmt.Errorf("read schema: %w", err)
		}
	}
	switch {
	case fresh && tables != 0:
		return 0, errors.New("the new database is not empty")
	case !fresh && app != applicationID:
		return 0, errors.New("not a Signet database")
	case version > len(migrations):
		return 0, fmt.Errorf("schema %d is newer than this program's %d", version, len(migrations))
	}
	return version, nil
}

func migrateOne(ctx context.Context, db *sql.DB, version int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
		return err
	}
	// PRAGMA takes no parameters; both numbers are ours.
	pragmas := fmt.Sprintf(`PRAGMA application_id = %d; PRAGMA user_version = %d`, applicationID, version+1)
	if _, err := tx.ExecContext(ctx, pragmas); err != nil {
		return err
	}
	return tx.Commit()
}
