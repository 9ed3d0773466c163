package agent

import (
	"context"
	"log/slog"

	"signet.example/api"
	"signet.example/authz"
)

const (
	RecordDelay = recordDelay
	RecordBatch = recordBatch
)

// CPUOf returns the processor time that a process has used.
var CPUOf = cpuOf

// PeerMode is how this kernel lets peers be attested.
var PeerMode = peerMode

// BatchOf is the first batch of what the authz process sends of these records.
func BatchOf(ctx context.Context, records []authz.Record) []*api.Decision {
	d := newDecider(slog.New(slog.DiscardHandler), nil)
	for _, r := range records {
		d.record(r)
	}
	return d.batch(ctx)
}
