package ecs

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"signet.example/agent/appmeshenv"
	"signet.example/agent/local"
)

// This file has what is refused, by name, before anything is changed.

// checkTask refuses tasks in which Signet's agent would not start, or not join.
func (t *task) checkTask() {
	mode := t.get("networkMode")
	switch fargate := slices.ContainsFunc(t.get("requiresCompatibilities").items(), func(v *value) bool { return v.is("FARGATE") }); {
	case mode == nil && !fargate:
		t.refuse(nil, t.at("networkMode"), "is missing, which is bridge outside of Fargate: a task's agent needs a network of its own, awsvpc; in the others run the agent of the host (signet ecs taskdef agent)")
	case mode != nil && mode.kind == scalar && mode.text != "awsvpc":
		t.refuse(mode, t.at("networkMode"), "is %s: a task's agent needs a network of its own, awsvpc; in the others run the agent of the host (signet ecs taskdef agent)", mode.text)
	}
	if t.get("taskRoleArn") == nil {
		t.refuse(nil, t.at("taskRoleArn"), "is missing: the task joins by its role")
	}
	if os := t.of(t.get("runtimePlatform"), "operatingSystemFamily").literal(); os != "" && os != "LINUX" {
		t.refuse(t.get("runtimePlatform"), t.at("runtimePlatform", "operatingSystemFamily"), "is %s: the agent is a program for Linux", os)
	}
	t.checkLists(t.v, func(key string) string { return t.at(key) }, "volumes")
	for _, v := range t.get("volumes").items() {
		if t.literal(v, "name") == volume {
			t.refuse(v, t.at("volumes"), "has a volume %q: give it another name", volume)
		}
	}
	for _, c := range t.containers() {
		if t.literal(c, "name") == stopName {
			t.refuse(c, t.container(c), "is converted already")
		}
	}
}

// checkEnvoy refuses what its container has and Signet's image cannot.
func (t *task) checkEnvoy() {
	for _, key := range []string{"entryPoint", "command"} {
		if v := t.of(t.envoy, key); v != nil && (v.kind != list || len(v.children) > 0) {
			t.refuse(v, t.container(t.envoy, key), "a program of yours starts Envoy: what it does is to be done elsewhere, since Signet's image has no shell; take it out")
		}
	}
	if v := t.of(t.envoy, "readonlyRootFilesystem"); v != nil && !v.is("false") {
		t.refuse(v, t.container(t.envoy, "readonlyRootFilesystem"), "the agent writes to %s and %s: take it out, or mount a volume at both", local.DataDir, local.SocketDir)
	}
	t.checkContainer(t.envoy, "environment", "secrets", "mountPoints")
	var named []string
	for _, key := range []string{"environment", "secrets"} {
		for _, e := range t.of(t.envoy, key).items() {
			name := t.literal(e, "name")
			if name == "" {
				t.refuse(e, t.container(t.envoy, key), "a variable is a function: write it out, so that it is known whether it is one of App Mesh's")
			}
			if strings.HasPrefix(name, "SIGNET_") {
				t.refuse(e, t.container(t.envoy, key), "has %s: it is converted already", name)
			}
			if value := t.literal(e, "value"); namesResource(name) {
				named = append(named, name+"="+value)
				t.proxy = cmp.Or(value, t.proxy)
				t.gateway = t.gateway || strings.Contains(value, "/virtualGateway/") || t.gatewayByFunction(t.of(e, "value"))
			}
		}
	}
	if _, _, err := appmeshenv.Signets(named); err != nil {
		t.refuse(t.envoy, t.container(t.envoy, "environment"), "%v", err)
	}
	if named == nil {
		t.refuse(t.envoy, t.container(t.envoy, "environment"), "no variable says which virtual node or gateway it is for: APPMESH_RESOURCE_ARN")
	}
}

func (t *task) checkApplication(c *value) {
	t.checkContainer(c, "dependsOn", "environment", "secrets")
	if t.beforeEnvoy(c) {
		t.refuse(t.of(t.envoy, "dependsOn"), t.container(t.envoy, "dependsOn"), "the proxy waits for %s, which is an application and is to wait for its proxy: ECS starts neither then. Take it out here, or name the application by --application", t.literal(c, "name"))
	}
	if t.way != ByVariable {
		return
	}
	for _, key := range []string{"environment", "secrets"} {
		for _, e := range t.of(c, key).items() {
			if name := t.literal(e, "name"); slices.Contains(proxyVariables, strings.ToLower(name)) {
				t.refuse(e, t.container(c, key), "has %s already: lead calls of the mesh to %s by the application's own configuration, and convert with --way-out none", name, wayOut)
			}
		}
	}
}

// proxyVariables are those that clients obey, in either case: which of them wins differs by client.
var proxyVariables = []string{"http_proxy", "https_proxy", "all_proxy", "no_proxy"}

// gatewayByFunction reports whether a function, as its text has it, makes the name of a gateway.
func (t *task) gatewayByFunction(v *value) bool {
	return v != nil && v.kind == opaque && aGateway.MatchString(t.d.text[v.start:v.end])
}

var aGateway = regexp.MustCompile(`\bvirtualGateway\b`)

// checkContainer refuses one whose name is not known, or in which lists are not that are looked into.
func (t *task) checkContainer(c *value, lists ...string) {
	if v := t.of(c, "name"); v != nil && v.kind == opaque {
		t.refuse(v, t.container(c, "name"), "is a function: write it out, so that others can wait for it")
	}
	t.checkLists(c, func(key string) string { return t.container(c, key) }, lists...)
}

// checkLists refuses what would be replaced whole where it is added to.
func (t *task) checkLists(of *value, path func(key string) string, keys ...string) {
	for _, key := range keys {
		if v := t.of(of, key); v != nil && v.kind != list {
			t.refuse(v, path(key), "is a function, stands at an anchor, or is no list: write it out here, so that it is known what is in it and can be added to")
		}
	}
}

// lost refuses to take out anchors that are called elsewhere.
func (t *task) lost() {
	if !t.d.yaml {
		return
	}
	for _, gone := range t.v.gone() {
		for _, m := range anchor.FindAllStringSubmatch(t.d.text[gone.start:gone.end], -1) {
			calls := func(text string) bool {
				return regexp.MustCompile(`(?m)[\s\[{,]\*` + regexp.QuoteMeta(m[1]) + `([\s,\]}]|$)`).MatchString(text)
			}
			if calls(t.d.text[:gone.start]) || calls(t.d.text[gone.end:]) {
				t.problems = append(t.problems, t.d.errorAt(gone.start, gone.why.Path, "has the anchor &%s, which is called elsewhere, and is taken out or replaced: write it out there", m[1]))
			}
		}
	}
}

// anchor is one of YAML's.
var anchor = regexp.MustCompile(`(?:^|[\s\[{,])&([^\s\[\]{},]+)`)
