package agent

import (
	"reflect"
	"slices"
	"strings"

	"signet.example/agent/appmeshenv"
	"signet.example/internal/environ"
)

// This file is about the configuration of a task, which often has an environment and no files.

// Variables are those of a task's environment, for all keys of the agent's file that have one
// value, and for these keys of one proxy. The mode is given by the command, and what is for the
// other mode alone has none.
func Variables() []environ.Variable {
	all := environ.Variables(
		environ.Part{Type: reflect.TypeFor[Config](), Prefix: "SIGNET_"},
		environ.Part{Type: reflect.TypeFor[Proxy](), At: "proxies[0]", Prefix: "SIGNET_PROXY_"},
	)
	return slices.DeleteFunc(all, func(v environ.Variable) bool { return v.Key == "mode" || strings.HasPrefix(v.Key, "app_mesh.") })
}

// FromEnvironment is what an environment says, as an agent's file.
func FromEnvironment(of []string) (environ.Said, error) {
	of, written, err := appmeshenv.Signets(environ.WithoutLinks(of))
	if err != nil {
		return environ.Said{}, err
	}
	return environ.Read(of, "SIGNET_", Variables(), written, "SIGNET_TOKEN", "SIGNET_LOG_FORMAT")
}
