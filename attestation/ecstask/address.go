package ecstask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"signet.example/internal/netns"
)

// Address is the one at which others reach the task, and why: what ECS says, or that by which it
// reaches its server, host:port, where ECS says nothing or the task has no network of its own.
func (t Task) Address(ctx context.Context, server string) (own netip.Addr, why string, err error) {
	reached, unknown := netns.AddressTo(ctx, server)
	own, err = t.among(reached)
	switch {
	case err != nil || own.IsValid():
		return own, "which ECS says that the task has", err
	case unknown != nil:
		return own, "", fmt.Errorf("the address by which %s is reached is not known: %w", server, unknown)
	}
	return reached, "by which " + server + " is reached", nil
}

// errSeveral is of a task with several networks of its own.
var errSeveral = errors.New("the task has several networks, and reaches its server by none of them")

// among is that by which the server is reached, if it is one of the task's own: the server takes
// it without being told; else the only one, IPv4 before IPv6. It is the zero Addr where there is none.
func (t Task) among(reached netip.Addr) (netip.Addr, error) {
	all := slices.Concat(t.Networks...)
	switch {
	case len(all) == 0:
		return netip.Addr{}, nil
	case slices.Contains(all, reached):
		return reached, nil
	case len(t.Networks) > 1:
		return netip.Addr{}, fmt.Errorf("%w: %v", errSeveral, all)
	}
	return slices.MinFunc(all, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) }), nil
}
