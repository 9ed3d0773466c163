package policies

import (
	"context"

	"signet.example/policy/repo"
)

// Hard is a failure that trying the same commit again does not mend.
func Hard(err error) error { return hardError{err} }

// Poll reads one source as it is read when it is due.
func Poll(ctx context.Context, p *Revisions, src repo.Source) { p.syncOne(ctx, src, false) }
