package tcpsock_test

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"signet.example/internal/tcpsock"
)

func TestAnAddressIsTriedAsItIsListenedOn(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]error{
		taken.Addr().String(): unix.EADDRINUSE, ":" + port: unix.EADDRINUSE, "0.0.0.0:" + port: unix.EADDRINUSE,
		"127.0.0.2:" + port: nil, "127.0.0.1:0": nil, ":0": nil, "localhost:0": nil, "[::1]:0": nil, "[::]:0": nil,
		"192.0.2.1:0": unix.EADDRNOTAVAIL, "[2001:db8::1]:0": unix.EADDRNOTAVAIL,
	} {
		err := tcpsock.Try(t.Context(), address)
		listened, listenErr := net.Listen("tcp", address)
		if listenErr == nil {
			_ = listened.Close()
		}
		if strings.HasPrefix(address, "[") && errors.Is(listenErr, unix.EAFNOSUPPORT) {
			continue // no IPv6 here
		}
		if !errors.Is(err, want) || (err == nil) != (listenErr == nil) {
			t.Errorf("%s: %v, want %v; listening: %v", address, err, want, listenErr)
		}
	}
	for _, address := range []string{"127.0.0.1", "127.0.0.1:70000", "no such host:1"} {
		if err := tcpsock.Try(t.Context(), address); err == nil {
			t.Errorf("%q can be listened on", address)
		}
	}
}

// A start that meets a check must not fail for it.
func TestWhoTriesAnAddressTakesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close() // only for a port that is free
	ended := make(chan struct{})
	var trying sync.WaitGroup
	for range 4 {
		trying.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
					_ = tcpsock.Try(t.Context(), address) // it may be taken
				}
			}
		})
	}
	for range 1_000 {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("beside who tries: %v", err)
		}
		_ = l.Close()
	}
	close(ended)
	trying.Wait()
}

func TestAnAddressThatThisHostDoesNotHaveIsNamed(t *testing.T) {
	if err := tcpsock.TryAddress(t.Context(), "192.0.2.77"); err == nil || !strings.Contains(err.Error(), "this host does not have the address 192.0.2.77") {
		t.Error(err)
	}
	if err := tcpsock.TryAddress(t.Context(), "127.0.0.7"); err != nil {
		t.Error(err)
	}
}
