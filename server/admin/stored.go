package admin

import (
	"context"

	"signet.example/internal/ordered"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/groups"
	"signet.example/server/kinds"
	"signet.example/store"
	"signet.example/xds/effect"
)

// Model is everything that is stored, at one moment, valid as a whole. It is immutable.
type Model interface {
	Revision() uint64
	Graph() *mesh.Graph
	Objects() ordered.Map[kinds.Key, *kinds.Object]
	Groups() groups.Groups
}

// Stored is what is stored.
type Stored interface {
	// Newest is what is stored now.
	Newest(ctx context.Context) (Model, error)
	// Begin waits for the change before, and returns one that nobody else's comes into
	// until end is called.
	Begin(ctx context.Context) (c Change, end func(), err error)
}

// Change is one that is being made. What it becomes is written only by the steps that
// follow: a Draft is valid as a whole, and what a Ready writes was translated, where it
// puts anything: what only takes objects away leaves no more to translate than was there.
type Change interface {
	// Now is what is stored.
	Now() Model
	// With puts objects in the place of what is there, and takes others away. Everything
	// that is wrong with what that gives is in the error.
	With(put []*kinds.Object, remove ...kinds.Key) (Draft, error)
}

// Draft is a change that is valid as a whole.
type Draft interface {
	Model() Model
	// Try reads back what writes will store, which must be what was checked, and
	// translates what they change; it tells refused of each node that cannot be. With nil
	// nothing is translated before it is stored.
	Try(writes []store.Write, refused func(proxy.Ref, error)) (Ready, error)
	// Effects are what it would do to proxies and requests. It may be asked after the end of
	// the change. leftOut counts the virtual hosts of which not every request was looked at.
	// Without requests none is looked at.
	Effects(requests bool) (all []effect.Effect, leftOut int, err error)
}

// Ready is a change that can be stored.
type Ready interface {
	// Write stores it, with the row of the audit trail that says who asked for what, and
	// serves it: when it returns, the views have it.
	Write(ctx context.Context, actor, asked string) (revision uint64, err error)
}

// begin is the beginning of every change: who makes it, and what is stored.
func (s *Server) begin(ctx context.Context) (actor string, c Change, end func(), err error) {
	if actor, err = actorOf(ctx); err != nil {
		return "", nil, nil, err
	}
	c, end, err = s.cfg.Stored.Begin(ctx)
	return actor, c, end, err
}
