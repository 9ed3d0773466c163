package server

import (
	"context"
	"sync/atomic"
)

var running atomic.Pointer[server]

func init() { testOnlyRunning = running.Store }

// BanAgent bans in the store of the server that was started last.
func BanAgent(ctx context.Context, id string) error {
	return running.Load().store.BanAgent(ctx, "test", id)
}

// Internals that are tested by themselves.
var (
	PlainText = plainText
	AgentName = agentID
	FetchJWKS = fetchJWKS
)
