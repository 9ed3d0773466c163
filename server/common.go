package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"signet.example/internal/watched"
	"signet.example/server/awaited"
	"signet.example/server/cloudmap"
	"signet.example/server/fleet"
	"signet.example/server/issuers"
	"signet.example/server/policies"
	"signet.example/server/shared"
)

// common is what the servers of one store have in common beside what is in it. Nothing
// that a second server would have to know is kept elsewhere in memory (docs/ARCHITECTURE.md
// has the table): a database that takes the place of each is all that several servers need.
type common struct {
	fleet      shared.Value[*fleet.Known]      // who is served and connected where, reports, endpoints
	awaited    shared.Value[*awaited.Nodes]    // virtual nodes whose Binding does not count yet
	keys       shared.Value[issuers.Sets]      // of end-user token issuers
	found      shared.Value[*cloudmap.Answers] // instances of virtual nodes in AWS Cloud Map
	policy     shared.Value[*policies.State]   // the revision in force, and the one that routes are stamped with
	activating shared.Lock                     // of policy
	writes     shared.Lock                     // of what is stored: held by an admin write from its check to its end

	// keep writes down what outlives the server, until ctx ends.
	keep func(ctx context.Context) error
}

// alone is what a server has that is the only one of its store: all of it in memory, and
// in files where that outlives it. With an error some of that is lost, and what is
// returned is of use.
func alone(dir dataDir, clock func() time.Time, log *slog.Logger) (common, error) {
	known, err := fleet.OpenFile(dir.endpoints(), clock, log)
	waited, waitedErr := awaited.OpenFile(dir.awaited(), log)
	keys, keysErr := issuers.OpenFile(dir.issuers(), log)
	found, foundErr := cloudmap.OpenFile(dir.cloudMap(), log)
	keep := func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		for _, run := range []func(context.Context) error{known.Run, waited.Run, keys.Run, found.Run} {
			g.Go(func() error { return run(ctx) })
		}
		return g.Wait()
	}
	return common{
		fleet: known, awaited: waited, keys: keys, found: found, policy: &watched.Value[*policies.State]{}, activating: shared.NewMutex(), writes: shared.NewMutex(), keep: keep,
	}, errors.Join(err, waitedErr, keysErr, foundErr)
}
