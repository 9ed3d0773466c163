package dev

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// reservationPort is bound on every address of a Loopback for as long as it is
// held: whoever looks for addresses at the same time takes others.
const reservationPort = 15999

// Loopback is a run of addresses of 127.0.0.0/8 that nobody else uses, of the
// demos and tests on this machine.
type Loopback struct {
	Addresses []string
	held      []net.Listener
}

// ReserveLoopback finds n addresses on which the given ports are free, too. Two
// processes start their search at different places, by their process ids.
func ReserveLoopback(n int, ports ...int) (*Loopback, error) {
	pid := os.Getpid()
	for try := range 500 {
		block := (pid*31 + try*7919) % (253 * 254)
		l := &Loopback{}
		if l.take(2+block/254, block%254, n, ports) {
			return l, nil
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("found no block of %d free loopback addresses", n)
}

func (l *Loopback) take(second, third, n int, ports []int) bool {
	for last := 1; last <= n; last++ {
		address := fmt.Sprintf("127.%d.%d.%d", second, third, last)
		held, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(reservationPort))) //nolint:noctx // an address of this host: nothing to wait for
		if err != nil {
			return false
		}
		l.held = append(l.held, held)
		for _, port := range ports {
			if !free(address, port) {
				return false
			}
		}
		l.Addresses = append(l.Addresses, address)
	}
	return true
}

func free(address string, port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port))) //nolint:noctx // likewise
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// Close gives the addresses back.
func (l *Loopback) Close() error {
	var errs []error
	for _, held := range l.held {
		errs = append(errs, held.Close())
	}
	l.held = nil
	return errors.Join(errs...)
}
