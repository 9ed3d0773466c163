package parts

import (
	"context"
	"io"
	"net"
	"testing"
)

// Relay has what listens at a loopback address of this host listen there on the n-th host, too.
func Relay(t testing.TB, host int, address string) {
	t.Helper()
	var l net.Listener
	FromHost(t, host, func() {
		var err error
		if l, err = net.Listen("tcp", address); err != nil {
			t.Error(err)
		}
	})
	if l == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // ends by Close
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with either end
				defer func() { _ = from.Close() }()
				to, err := new(net.Dialer).DialContext(context.WithoutCancel(t.Context()), "tcp", address)
				if err != nil {
					return
				}
				defer func() { _ = to.Close() }()
				go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
				_, _ = io.Copy(from, to)
			}()
		}
	}()
}
