package envoy

import (
	"log/slog"
	"slices"
	"testing"

	"signet.example/internal/child"
)

func TestAProxyIsAttestedAsTheUserThatItRunsAs(t *testing.T) {
	e := newEnvoy(Config{Program: "/bin/sh", Log: slog.New(slog.DiscardHandler)}, Proxy{Name: "web", User: &child.User{UID: 64991, GID: 64992}}, &programs{})
	has := e.selectors()
	for _, want := range []string{"unix:uid:64991", "unix:gid:64992"} {
		if !slices.Contains(has.Strings(), want) {
			t.Errorf("%s is not among %q", want, has.Strings())
		}
	}
}
