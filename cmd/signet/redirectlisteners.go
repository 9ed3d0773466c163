package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"signet.example/attestation"
	"signet.example/redirect"
)

// listeners is what is wrong with who listens where rules lead to: nobody, or a user who is not the
// proxy's. A port is anybody's who listens first, and on a host that can be any user while the
// proxy is down.
type listeners struct{ silent, strangers []string }

func listenersOf(ctx context.Context, r redirect.Rules) (l listeners, err error) {
	const goesOut, comesIn = "what goes out", "what comes in"
	loopback := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if !r.IPv4Only {
		loopback = append(loopback, netip.IPv6Loopback())
	}
	l.silent = silent(ctx, r.EgressPort, goesOut)
	l.strangers, err = strangers(r, loopback, r.EgressPort, goesOut)
	if err != nil || len(r.AppPorts) == 0 {
		return l, err
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return l, fmt.Errorf("addresses of this network namespace: %w", err)
	}
	var all []netip.Addr
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && (p.Addr().Is4() || !r.IPv4Only) {
			all = append(all, p.Addr())
		}
	}
	others, err := strangers(r, all, r.IngressPort, comesIn)
	l.silent = append(l.silent, silent(ctx, r.IngressPort, comesIn)...)
	l.strangers = append(l.strangers, others...)
	return l, err
}

// silent is a port of the proxy at which nobody listens.
func silent(ctx context.Context, port uint16, what string) []string {
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port).String()
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", at)
	if err != nil {
		return []string{fmt.Sprintf("nobody listens at %s: %s is refused until the proxy runs, or taken by whoever listens there before it", at, what)}
	}
	_ = conn.Close() // nothing was sent
	return nil
}

// strangers are the users who listen at a port of the proxy and are none of those who are left
// alone. Whose group is left alone is not seen: where one is named nobody is a stranger.
func strangers(r redirect.Rules, at []netip.Addr, port uint16, what string) ([]string, error) {
	if len(r.IgnoreUIDs) == 0 || len(r.IgnoreGIDs) > 0 {
		return nil, nil
	}
	var found []string
	for _, a := range at {
		owners, err := attestation.ListenerOwners(netip.AddrPortFrom(a, port))
		if errors.Is(err, attestation.ErrElsewhere) { // of IPv6, where there is none
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, o := range owners {
			line := fmt.Sprintf("user %d listens at port %d, and is none of --ignore-uid: it is given %s; if it is the proxy's user, name it by --ignore-uid", o.UID, port, what)
			if !slices.Contains(r.IgnoreUIDs, o.UID) && !slices.Contains(found, line) {
				found = append(found, line)
			}
		}
	}
	return found, nil
}
