package yesterday

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"signet.example/api"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

const trustDomain = "yesterday.example"

var errMissing = errors.New("not all of it is there")

// resume starts today's server on what the release before left behind, by its configuration.
func resume(t *testing.T) *meshtest.World {
	t.Helper()
	w := meshtest.Prepare(t, meshtest.Options{TrustDomain: trustDomain, Nodes: []string{"front", "orders"}})
	unpack(t, "whole.tar.gz", w.Dir)
	w.StartServerWith(config(t, w, "server.yaml"))
	return w
}

// config writes a configuration of the release before with this World's places in it.
func config(t *testing.T, w *meshtest.World, name string) string {
	t.Helper()
	addresses, _ := w.Addresses(w.ServerDir()) // none before the server's start
	return configWith(t, w, name, addresses.Agents)
}

// configWith has the server at an address.
func configWith(t *testing.T, w *meshtest.World, name, server string) string {
	t.Helper()
	names := []string{"@DIR@", w.Dir, "@LOGS@", filepath.Join(w.Dir, "logs"), "@UID@", strconv.Itoa(os.Getuid()), "@ENVOY@", parts.Envoy(t), "@SERVER@", server}
	for _, n := range w.Nodes {
		names = append(names, "@"+n.Name+".bind@", n.Bind, "@"+n.Name+".app@", n.App)
	}
	path := filepath.Join(w.Dir, name)
	if err := os.WriteFile(path, []byte(strings.NewReplacer(names...).Replace(string(kept(t, name)))), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// created is a new token for the group of the hosts.
func created(t *testing.T, w *meshtest.World) string {
	t.Helper()
	answer, err := w.Admin.CreateToken(t.Context(), &api.CreateTokenRequest{Group: "hosts"})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetToken()
}
