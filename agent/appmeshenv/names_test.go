package appmeshenv_test

import (
	"slices"
	"strings"
	"testing"

	"signet.example/agent/appmeshenv"
)

func TestWhatAppMeshsVariablesSayIsSaidBySignets(t *testing.T) {
	const arn = "arn:aws:appmesh:eu-west-1:123456789012:mesh/shop/virtualNode/web"
	for name, c := range map[string]struct {
		environ []string
		added   []string
	}{
		"none":                        {[]string{"PATH=/bin"}, nil},
		"a name":                      {[]string{"APPMESH_VIRTUAL_NODE_NAME=mesh/shop/virtualNode/web"}, []string{"SIGNET_PROXY_MESH=shop", "SIGNET_PROXY_VIRTUAL_NODE=web"}},
		"its ARN":                     {[]string{"APPMESH_RESOURCE_ARN=" + arn}, []string{"SIGNET_PROXY_MESH=shop", "SIGNET_PROXY_VIRTUAL_NODE=web"}},
		"twice the same":              {[]string{"APPMESH_RESOURCE_ARN=" + arn, "APPMESH_RESOURCE_NAME=mesh/shop/virtualNode/web"}, []string{"SIGNET_PROXY_MESH=shop", "SIGNET_PROXY_MESH=shop", "SIGNET_PROXY_VIRTUAL_NODE=web", "SIGNET_PROXY_VIRTUAL_NODE=web"}},
		"a gateway":                   {[]string{"APPMESH_RESOURCE_ARN=mesh/shop/virtualGateway/in"}, []string{"SIGNET_PROXY_MESH=shop", "SIGNET_PROXY_VIRTUAL_GATEWAY=in"}},
		"threads":                     {[]string{"ENVOY_CONCURRENCY=3"}, []string{"SIGNET_PROXY_CONCURRENCY=3"}},
		"the admin interface's port":  {[]string{"ENVOY_ADMIN_ACCESS_PORT=9901"}, []string{"SIGNET_PROXY_ADMIN_READ_ONLY=127.0.0.1:9901"}},
		"Signet's own goes before":    {[]string{"ENVOY_CONCURRENCY=3", "SIGNET_PROXY_CONCURRENCY=1", "APPMESH_RESOURCE_ARN=" + arn, "SIGNET_PROXY_VIRTUAL_NODE=b"}, nil},
		"what is empty is not there":  {[]string{"APPMESH_RESOURCE_ARN=", "ENVOY_LOG_LEVEL="}, nil},
		"what is another's is no key": {[]string{"APPMESH=1", "ENABLE_ENVOY=1"}, nil},
	} {
		out, _, err := appmeshenv.Signets(c.environ)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(out[:len(c.environ)], c.environ) {
			t.Errorf("%s: of %q is left %q", name, c.environ, out)
		}
		added := slices.Clone(out[len(c.environ):])
		if slices.Sort(added); !slices.Equal(added, c.added) {
			t.Errorf("%s: %q, want %q", name, added, c.added)
		}
	}
}

func TestWhatNothingFollowsIsRefusedByName(t *testing.T) {
	for environ, want := range map[string]string{
		"ENVOY_LOG_LEVEL=debug": "ENVOY_LOG_LEVEL: Envoy logs warnings",
		"ENVOY_CRASH=1":         "ENVOY_CRASH: this version has nothing like it",
		"ENVOY_ADMIN_MODE=tcp":  "ENVOY_ADMIN_MODE: Envoy's admin interface is the agent's alone, on a Unix socket; SIGNET_PROXY_ADMIN_READ_ONLY is where three paths of it can be read: take it out",
		"APPMESH_METRIC_EXTENSION_VERSION=1 ENABLE_ENVOY_STATS_TAGS=1":                                      "APPMESH_METRIC_EXTENSION_VERSION: this version has nothing like it: take it out; ENABLE_ENVOY_STATS_TAGS: ",
		"APPMESH_RESOURCE_ARN=mesh/shop/virtualNode/web/x":                                                  "APPMESH_RESOURCE_ARN: node id",
		"APPMESH_RESOURCE_ARN=arn:aws:s3:::mesh/shop/virtualNode/web":                                       "not the ARN of an App Mesh resource",
		"APPMESH_RESOURCE_ARN=mesh/shop/virtualNode/a APPMESH_VIRTUAL_NODE_NAME=mesh/shop/virtualGateway/a": "APPMESH_RESOURCE_ARN and APPMESH_VIRTUAL_NODE_NAME name two proxies",
	} {
		out, _, err := appmeshenv.Signets(strings.Fields(environ))
		if err == nil || !strings.Contains(err.Error(), want) || out != nil {
			t.Errorf("%s: %q, %v, want %s", environ, out, err, want)
		}
	}
}

// A row whose name another one before it covers would never be found.
func TestEachNameHasItsOwnRow(t *testing.T) {
	for _, n := range appmeshenv.Names {
		name := strings.ReplaceAll(n.Name, "*", "X")
		if got, ok := appmeshenv.Of(name); !ok || got.Name != n.Name {
			t.Errorf("%s is found as %q", name, got.Name)
		}
	}
	if n, ok := appmeshenv.Of("PATH"); ok {
		t.Errorf("PATH is %q", n.Name)
	}
}
