// Package appmeshenv has the variables that App Mesh's images were configured by: which of them
// are obeyed, and why the others are refused.
//
// It must not know what an agent does with them: what is obeyed is given as variables of Signet's.
//
// # Concurrency
//
// Everything is a value.
package appmeshenv

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"signet.example/proxy"
)

// Name is a variable of the environment that App Mesh's images had.
type Name struct {
	// Name, or with * at its end how such names begin.
	Name string
	// Refused is why it is, and what to do; "" where it is obeyed.
	Refused string

	// keys of the file that its value gives, and the words for them.
	keys func(value string) (map[string]string, error)
}

const notYet = "this version has nothing like it: take it out"

// Names are those that are obeyed, or refused by name: what is only ignored would look as if it
// went on. A variable of Signet's wins over one of these.
var Names = []Name{
	{Name: "APPMESH_RESOURCE_ARN", keys: resource},
	{Name: "APPMESH_RESOURCE_NAME", keys: resource},
	{Name: "APPMESH_VIRTUAL_NODE_NAME", keys: resource},
	{Name: "ENVOY_CONCURRENCY", keys: func(value string) (map[string]string, error) {
		return map[string]string{"SIGNET_PROXY_CONCURRENCY": value}, nil
	}},
	{Name: "APPMESH_XDS_ENDPOINT", Refused: "routes come from Signet's server: SIGNET_SERVER"},
	{Name: "APPMESH_SDS_SOCKET_PATH", Refused: "certificates come from Signet's server: take it out"},
	{Name: "APPMESH_RESOURCE_CLUSTER", Refused: notYet},
	{Name: "APPMESH_VIRTUAL_NODE_CLUSTER", Refused: notYet},
	{Name: "APPMESH_SIGNING_NAME", Refused: "nothing is signed for App Mesh: take it out"},
	{Name: "APPMESH_METRIC_*", Refused: notYet},
	{Name: "APPNET_*", Refused: "of App Mesh's own agent: take it out"},
	{Name: "ENABLE_ENVOY_*", Refused: notYet},
	{Name: "ENVOY_ADMIN_ACCESS_PORT", keys: func(value string) (map[string]string, error) {
		if n, err := strconv.ParseUint(value, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("want a port, 1 to 65535, got %q", value)
		}
		return map[string]string{"SIGNET_PROXY_ADMIN_READ_ONLY": "127.0.0.1:" + value}, nil
	}},
	{Name: "ENVOY_ADMIN_*", Refused: "Envoy's admin interface is the agent's alone, on a Unix socket; SIGNET_PROXY_ADMIN_READ_ONLY is where three paths of it can be read: take it out"},
	{Name: "ENVOY_LOG_LEVEL", Refused: "Envoy logs warnings, to the agent's log: SIGNET_LOG_LEVEL is that one's; take it out"},
	{Name: "ENVOY_*", Refused: notYet},
}

// Of is the row of a variable's name, of several the first that fits.
func Of(name string) (Name, bool) {
	i := slices.IndexFunc(Names, func(n Name) bool {
		begin, any := strings.CutSuffix(n.Name, "*")
		return name == n.Name || any && strings.HasPrefix(name, begin)
	})
	if i < 0 {
		return Name{}, false
	}
	return Names[i], true
}

// resource reads what names the proxy as App Mesh's agent does, which is also its node id.
func resource(value string) (map[string]string, error) {
	ref, err := proxy.ParseRef(value)
	if err != nil {
		return nil, err
	}
	named := "SIGNET_PROXY_VIRTUAL_NODE"
	if ref.Gateway() {
		named = "SIGNET_PROXY_VIRTUAL_GATEWAY"
	}
	return map[string]string{"SIGNET_PROXY_MESH": ref.Mesh, named: ref.Name}, nil
}

// Signets is an environment with what App Mesh's names say as variables of Signet's, and by the names
// of these what was written.
func Signets(environ []string) (out []string, written map[string]string, err error) {
	given := map[string]bool{}
	for _, one := range environ {
		name, value, _ := strings.Cut(one, "=")
		given[name] = value != ""
	}
	ours := given["SIGNET_PROXY_VIRTUAL_NODE"] || given["SIGNET_PROXY_VIRTUAL_GATEWAY"]
	out, written = slices.Clone(environ), map[string]string{}
	var refused []string
	var named string // the variable that names the proxy
	var says map[string]string
	for _, one := range environ {
		name, value, _ := strings.Cut(one, "=")
		n, ok := Of(name)
		switch {
		case !ok || value == "":
			continue
		case n.Refused != "":
			refused = append(refused, name+": "+n.Refused)
			continue
		}
		keys, err := n.keys(value)
		if err != nil {
			refused = append(refused, name+": "+err.Error())
			continue
		}
		if keys["SIGNET_PROXY_MESH"] != "" {
			switch {
			case ours:
				continue
			case says != nil && !maps.Equal(says, keys):
				refused = append(refused, fmt.Sprintf("%s and %s name two proxies: take one of them out", named, name))
			}
			named, says = name, keys
		}
		for key, text := range keys {
			if !given[key] {
				out = append(out, key+"="+text)
				written[key] = name
			}
		}
	}
	if refused != nil {
		slices.Sort(refused)
		return nil, nil, fmt.Errorf("of App Mesh's environment: %s", strings.Join(refused, "; "))
	}
	return out, written, nil
}
