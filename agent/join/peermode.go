package join

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"signet.example/api"
	"signet.example/attestation"
	"signet.example/internal/unixsock"
)

// PeerMode is how this kernel lets peers be attested.
func PeerMode(refuseLegacy bool) (api.Report_PeerMode, error) {
	ours, theirs, err := unixsock.Pair(unix.SOCK_STREAM, "peer mode")
	if err != nil {
		return 0, err
	}
	defer func() { _ = errors.Join(ours.Close(), theirs.Close()) }() // only looked at
	p, err := (&attestation.Attestor{RefuseLegacy: refuseLegacy}).Peer(ours)
	if errors.Is(err, attestation.ErrLegacy) {
		return 0, fmt.Errorf("refuse_legacy_peers: %w: run a kernel of 6.5 or later, or leave the key out", err)
	}
	if err != nil {
		return 0, fmt.Errorf("peers cannot be attested here: %w", err)
	}
	defer func() { _ = p.Close() }() // a pidfd
	if p.Mode() == attestation.ModeLegacy {
		return api.Report_LEGACY, nil
	}
	return api.Report_PIDFD, nil
}
