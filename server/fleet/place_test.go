package fleet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"signet.example/api"
	"signet.example/internal/underway"
)

// A copy of its folder may ask at that very moment, as often as it likes.
func TestAnAgentWhoseSessionTheServerEndedKeepsItsPlaceUntilItHadTheTimeToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := probedSessions()
		_, cut := probedAgent(t, r, func(*probedStream, *api.SessionDown) {})
		var probed []verdict // that wait for the answer to a probe when it ends
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			probed = newcomersAsk(t, r, 10)
		}()
		synctest.Wait()
		cut()
		<-asked
		for _, v := range append(probed, newcomersAsk(t, r, 100)...) {
			if v.alive || !errors.Is(v.err, errUnsure) || v.took != 0 {
				t.Fatalf("%+v", v)
			}
		}
		time.Sleep(placeKept - time.Millisecond)
		if v := newcomersAsk(t, r, 1)[0]; !errors.Is(v.err, errUnsure) {
			t.Errorf("%+v", v)
		}
		_, cut = probedAgent(t, r, func(s *probedStream, m *api.SessionDown) { s.up <- alive(m) })
		if v := newcomersAsk(t, r, 1)[0]; !v.alive {
			t.Errorf("it came back: %+v", v)
		}
		cut()
		time.Sleep(placeKept)
		if v := newcomersAsk(t, r, 1)[0]; v.alive || v.err != nil || r.known().run("x").place != nil {
			t.Errorf("it did not come back: %+v, its place is %v", v, r.known().run("x").place)
		}
	})
}

// inRoom are credentials of everybody, whose connections are in a Room.
type inRoom struct {
	credentials.TransportCredentials
	room *underway.Room
}

func (c inRoom) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.room.Enter(conn, "agent x", nil), nil, nil
}

func (c inRoom) Clone() credentials.TransportCredentials { return c }

// sessionsOf serves sessions of agent x.
type sessionsOf struct {
	api.UnimplementedAgentAPIServer
	sessions *Sessions
}

func (s sessionsOf) Session(stream grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]) error {
	return s.sessions.Serve(hostile("x"), stream)
}

func TestAPlaceIsKeptWhereTheServerEndsTheConnectionAndFreeAtOnceWhereTheAgentsProcessDoes(t *testing.T) {
	for _, server := range []bool{true, false} {
		r, room := probedSessions(), underway.New(underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
		age := time.Hour
		if server {
			age = 100 * time.Millisecond
		}
		g := grpc.NewServer(grpc.Creds(inRoom{insecure.NewCredentials(), room}), grpc.StatsHandler(room.Handler()),
			grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age, MaxConnectionAgeGrace: 50 * time.Millisecond}))
		api.RegisterAgentAPIServer(g, sessionsOf{sessions: r})
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = g.Serve(l) }() // it ends with the test
		t.Cleanup(g.Stop)
		conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // it may be closed
		stream, err := api.NewAgentAPIClient(conn).Session(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Second); len(r.Connected()) == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if !server {
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Recv(); err == nil {
			t.Fatal("its session goes on")
		}
		for end := time.Now().Add(5 * time.Second); len(r.Connected()) != 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		_, alive, err := r.Answers(t.Context(), "x", "", netip.Addr{})
		for end := time.Now().Add(time.Second); !server && err != nil && time.Now().Before(end); {
			_, alive, err = r.Answers(t.Context(), "x", "", netip.Addr{}) // a stream's end comes before its connection's
		}
		if alive || errors.Is(err, errUnsure) != server {
			t.Errorf("ended by the server: %t; a newcomer: alive %t, %v", server, alive, err)
		}
	}
}
