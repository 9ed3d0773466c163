// Command run follows an ADS server as many proxies do, and prints when all of them have
// their configuration, and how many changes come each second from then on:
//
//	go run ./test/adsload/run -server unix:/run/xds.sock -streams 1000 -nodes 200
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/ads"
	"signet.example/test/adsload"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	server := flag.String("server", "", "address of the ADS server: host:port, or unix:/path")
	streams := flag.Int("streams", 1000, "how many proxies")
	shared := flag.Int("shared", 1, "how many of them share a connection")
	nodes := flag.Int("nodes", 1, "how many node ids there are")
	id := flag.String("id", "node-%d", "a node id; %d is its number")
	cluster := flag.String("cluster", "", "the nodes' cluster")
	certificate := flag.String("cert", "", "file of the certificate and its key to show; without one the connection is plaintext")
	roots := flag.String("roots", "", "file of the authorities that the server's certificate is checked by")
	d := flag.Duration("for", 30*time.Second, "how long to go on")
	flag.Parse()
	if *server == "" || *streams < 1 || *shared < 1 || *nodes < 1 {
		return errors.New("-server is needed; -streams, -shared and -nodes are at least 1")
	}
	creds, err := transport(*certificate, *roots)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *d)
	defer cancel()
	conns := connections{server: *server, creds: creds, open: map[int]*grpc.ClientConn{}}
	defer conns.close()
	began := time.Now()
	r := adsload.Load{
		Streams: *streams,
		Conn:    func(n int) (grpc.ClientConnInterface, error) { return conns.get(n / *shared) },
		Node: func(n int) *corev3.Node {
			return &corev3.Node{Id: fmt.Sprintf(*id, n%*nodes), Cluster: *cluster}
		},
	}.Start(ctx)
	defer r.Stop()
	if err := r.Await(ctx, *streams); err != nil {
		return err
	}
	fmt.Printf("%d streams have their routes after %s\n", *streams, time.Since(began).Round(time.Millisecond))
	for ctx.Err() == nil {
		second, end := context.WithTimeout(ctx, time.Second)
		n := 0
		for r.Await(second, 1) == nil {
			n++
		}
		end()
		if n > 0 {
			fmt.Printf("%s: %d changes of routes; streams ended %d times\n", time.Since(began).Round(time.Second), n, r.Ended())
		}
	}
	return nil
}

// transport is TLS where there is a certificate.
func transport(certificate, roots string) (credentials.TransportCredentials, error) {
	if certificate == "" {
		return insecure.NewCredentials(), nil
	}
	own, err := tls.LoadX509KeyPair(certificate, certificate)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(roots)
	if err != nil {
		return nil, fmt.Errorf("-roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("-roots: %s has no certificate", roots)
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, RootCAs: pool}), nil
}

// connections are made when they are asked for first.
type connections struct {
	server string
	creds  credentials.TransportCredentials

	mu   sync.Mutex
	open map[int]*grpc.ClientConn
}

func (c *connections) get(n int) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[n] == nil {
		conn, err := grpc.NewClient(c.server, append(ads.DialOptions(), grpc.WithTransportCredentials(c.creds))...)
		if err != nil {
			return nil, err
		}
		c.open[n] = conn
	}
	return c.open[n], nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		_ = conn.Close() // nothing is lost
	}
}
