// Package storetest holds the contract that every backend of the store passes:
// gapless revisions, an ordered outbox, tokens used once, values kept byte for
// byte. It owns no database and knows none: a backend's own test hands in how
// to open a fresh one.
package storetest

import (
	"context"
	"testing"
	"time"

	"signet.example/store"
)

// Backend is the store's contract. Methods may be called from any number of
// goroutines; what a writing method wrote is durable when it returns.
type Backend interface {
	Apply(ctx context.Context, actor, asked string, basis uint64, writes []store.Write) (uint64, error)
	Objects(ctx context.Context) ([]store.Object, uint64, error)
	History(ctx context.Context, of store.Key, at uint64, n int) (past []store.Past, since uint64, err error)
	Back(ctx context.Context, revision uint64) ([]store.Write, error)
	Changes(ctx context.Context, after uint64) ([]store.Change, error)
	Wait(ctx context.Context, after uint64) (uint64, error)
	PutToken(ctx context.Context, hash []byte, group string, expires time.Time) error
	UseToken(ctx context.Context, hash []byte, now time.Time) (string, error)
	Used(ctx context.Context, hash []byte, now time.Time) (bool, error)
	UseOnce(ctx context.Context, hash []byte, now, until time.Time) (first bool, err error)
	PutAgent(ctx context.Context, a store.Agent) error
	Joined() (n uint64, next <-chan struct{})
	AgentByKey(ctx context.Context, hostKey []byte) (store.Agent, error)
	Agents(ctx context.Context) ([]store.Agent, error)
	BanAgent(ctx context.Context, actor, id, reason string) error
	DeleteAgent(ctx context.Context, actor, id string) error
	PutRevision(ctx context.Context, r store.PolicyRow) error
	LastRevision(ctx context.Context) (store.PolicyRow, error)
	Audit(ctx context.Context, actor, action, detail string) error
	Prune(ctx context.Context, keep store.Retention) (int64, error)
	AuditTrail(ctx context.Context, after uint64, n int) ([]store.AuditRow, error)
	LogMark(ctx context.Context) (store.LogMark, error)
	PutLogMark(ctx context.Context, m store.LogMark) error
	ResetLogMark(ctx context.Context, actor, detail string, m store.LogMark) error
}

// Run runs the contract. fresh opens an empty database and closes it by t.Cleanup.
func Run(t *testing.T, fresh func(t *testing.T) Backend) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Backend)
	}{
		{"RevisionsHaveNoGapsUnderConcurrency", revisionsHaveNoGaps},
		{"AFailedWriteLeavesNothing", failedWriteLeavesNothing},
		{"AWriteThatWasCheckedAgainstLessThanIsStoredIsRefused", staleWriteIsRefused},
		{"ADeletedObjectIsGoneAndInTheOutbox", deletedIsGone},
		{"AnObjectKeepsTheRevisionInWhichItWasFirstThere", createdIsKept},
		{"AnObjectsOwnerIsKeptNowAndInThePast", ownersAreKept},
		{"AnyValueIsKeptByteForByte", anyValue},
		{"WhatThereWasInARevisionIsKnown", thereWas},
		{"HistorySaysWhoChangedWhatAndWhen", historyTells},
		{"WaitWakesAfterTheCommit", waitWakes},
		{"WaitEndsWithItsContext", waitEnds},
		{"ATokenIsUsedOnce", tokenUsedOnce},
		{"AnExpiredTokenIsRefused", tokenExpires},
		{"EvidenceIsUsedOnceAndForgottenAfterItsEnd", evidenceUsedOnce},
		{"WhoFollowsTheAgentsIsWokenByEachThatJoins", joinWakes},
		{"ABanIsNeverLiftedByJoiningAgain", banStays},
		{"ADeletedAgentIsForgottenAndABannedOneIsNot", deletedAgentIsForgotten},
		{"AHostKeyBelongsToOneAgent", hostKeyIsOneAgents},
		{"EvidenceThatCanBeGivenAgainBelongsToOneAgent", evidenceIsOneAgents},
		{"TheLastPolicyRevisionIsTheNewest", lastPolicyRevision},
		{"TheAuditTrailNamesActorAndAction", auditTrail},
		{"WhatIsPrunedLeavesARow", prunedLeavesARow},
		{"ThePositionOfTheLogOnlyGrowsUnlessItIsReset", logMarkGrows},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, fresh(t)) })
	}
}

// whatever is the basis of a write that nothing is checked of: no revision comes after it.
const whatever = 1 << 62

func put(kind, mesh, name, manifest string) store.Write {
	return store.Write{Object: store.Object{Kind: kind, Mesh: mesh, Name: name, Manifest: []byte(manifest)}}
}

func apply(t *testing.T, b Backend, writes ...store.Write) uint64 {
	t.Helper()
	revision, err := b.Apply(t.Context(), "tester", "a test", whatever, writes)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}
