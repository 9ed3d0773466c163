package ecs

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"signet.example/agent/appmeshenv"
	"signet.example/agent/local"
	"signet.example/proxy"
)

// This file has what becomes of each part of a definition, and why.

const (
	volume    = "signet"
	stopName  = "signet-stop"
	usualStop = int(local.StopTimeout / time.Second)
	// LeastStop is what an agent needs between SIGTERM and its end, in seconds.
	LeastStop = 18
)

var (
	userOfAgent = strconv.Itoa(proxy.DefaultUID)
	wayOut      = "http://127.0.0.1:" + strconv.Itoa(proxy.DefaultEgressPort)
)

// commands are those of Signet's image: the Envoy's, its health check's, and that of what is stopped first.
var (
	command   = []string{"task"}
	healthy   = []string{"CMD", "signet", "agent", "health", "--wait", "4s"}
	stopFirst = []string{"agent", "stop", "--on-term"}
	commands  = [][]string{command, healthy, stopFirst}
)

// withoutProxy are the addresses that are asked without the proxy: the task's own, its metadata and credentials.
var withoutProxy = []string{"127.0.0.1", "localhost", "169.254.170.2", "169.254.169.254"}

func (t *task) convert() {
	t.findEnvoy()
	if t.envoy == nil {
		return
	}
	t.checkTask()
	t.checkEnvoy()
	t.chooseWayOut()
	t.findApplications()
	if len(t.problems) > 0 {
		return
	}
	t.convertRedirection()
	t.convertEnvoy()
	t.convertEnvironment()
	if len(t.applications) == 0 {
		return // a gateway, which nobody is behind
	}
	t.shareVolume()
	for _, app := range t.applications {
		t.convertApplication(app)
	}
	t.addStop()
}

func (t *task) containers() []*value { return t.get("containerDefinitions").items() }

// looksLikeEnvoy is by App Mesh's image, or by the variable that says whose Envoy it is.
func (t *task) looksLikeEnvoy(c *value) bool {
	if strings.Contains(t.literal(c, "image"), "aws-appmesh-envoy") {
		return true
	}
	return slices.ContainsFunc(t.of(c, "environment").items(), func(e *value) bool { return namesResource(t.literal(e, "name")) })
}

// namesResource reports whether a variable says which virtual node or gateway a proxy is for.
func namesResource(name string) bool {
	known, ok := appmeshenv.Of(name)
	return ok && known.Refused == "" && strings.HasPrefix(name, "APPMESH_")
}

func (t *task) findEnvoy() {
	all := t.get("containerDefinitions")
	if all == nil || all.kind != list {
		t.refuse(all, t.at("containerDefinitions"), "want a list of containers, written out")
		return
	}
	name := ""
	if p := t.get("proxyConfiguration"); p != nil {
		if kind := t.of(p, "type"); kind != nil && !kind.is("APPMESH") {
			t.refuse(kind, t.at("proxyConfiguration", "type"), "want APPMESH: no other is known")
			return
		}
		name = t.literal(p, "containerName")
	}
	var found []*value
	for _, c := range t.containers() {
		if c.kind != mapping {
			t.refuse(c, t.at("containerDefinitions"), "a container is a function: write it out, so that it is known whether it is the Envoy")
			return
		}
		if name != "" && t.literal(c, "name") == name || name == "" && t.looksLikeEnvoy(c) {
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 0 && name != "":
		t.refuse(t.get("proxyConfiguration"), t.at("proxyConfiguration", "containerName"), "there is no container %q", name)
	case len(found) == 0:
		t.refuse(all, t.at("containerDefinitions"), "no container has App Mesh's Envoy: its image is aws-appmesh-envoy, or it has APPMESH_RESOURCE_ARN or APPMESH_VIRTUAL_NODE_NAME")
	case len(found) > 1:
		t.refuse(found[1], t.at("containerDefinitions"), "%d containers have App Mesh's Envoy: one proxy a task is converted", len(found))
	default:
		t.envoy, t.name = found[0], t.literal(found[0], "name")
	}
}

// helpers are images of containers that serve and call nobody in the mesh.
var helpers = []string{"xray-daemon", "cloudwatch-agent", "fluent-bit", "fluentd", "otel-collector", "datadog/agent"}

func (t *task) helper(c *value) bool {
	image := t.literal(c, "image")
	return t.of(c, "firelensConfiguration") != nil || slices.ContainsFunc(helpers, func(h string) bool { return strings.Contains(image, h) })
}

func (t *task) waitsForEnvoy(c *value) *value {
	for _, on := range t.of(c, "dependsOn").items() {
		if t.literal(on, "containerName") == t.name {
			return on
		}
	}
	return nil
}

// waitsFor reports whether a container waits for another one, or for one that does, as for a migration.
func (t *task) waitsFor(c *value, name string, behind ...*value) bool {
	behind = append(behind, c)
	return slices.ContainsFunc(t.of(c, "dependsOn").items(), func(on *value) bool {
		waited := t.literal(on, "containerName")
		return waited == name || slices.ContainsFunc(t.containers(), func(other *value) bool {
			return t.literal(other, "name") == waited && !slices.Contains(behind, other) && t.waitsFor(other, name, behind...)
		})
	})
}

// beforeEnvoy reports whether the Envoy waits for a container, which then cannot wait for it.
func (t *task) beforeEnvoy(c *value) bool { return t.waitsFor(t.envoy, t.literal(c, "name")) }

// findApplications: those that are named, else those that wait for the Envoy, else those with ports, else all but
// helpers and those for which the Envoy waits.
func (t *task) findApplications() {
	if t.gateway {
		return
	}
	others := slices.DeleteFunc(t.containers(), func(c *value) bool { return c == t.envoy })
	if len(t.options.Applications) > 0 {
		for _, name := range t.options.Applications {
			i := slices.IndexFunc(others, func(c *value) bool { return t.literal(c, "name") == name })
			if i < 0 {
				t.refuse(nil, t.at("containerDefinitions"), "there is no container %q that could be the application", name)
				continue
			}
			if !slices.Contains(t.applications, others[i]) {
				t.applications = append(t.applications, others[i])
			}
		}
	} else {
		others = slices.DeleteFunc(others, t.helper)
		if behind := slices.DeleteFunc(slices.Clone(others), t.beforeEnvoy); len(behind) > 0 { // else it is refused by name
			others = behind
		}
		for _, is := range []func(*value) bool{
			func(c *value) bool { return t.waitsFor(c, t.name) },
			func(c *value) bool { return len(t.of(c, "portMappings").items()) > 0 },
			func(*value) bool { return true },
		} {
			if len(t.applications) == 0 {
				t.applications = slices.DeleteFunc(slices.Clone(others), func(c *value) bool { return !is(c) })
			}
		}
	}
	for _, c := range t.applications {
		t.checkApplication(c)
	}
}

func (t *task) convertEnvoy() {
	c := t.envoy
	t.set(c, "image", t.options.Image, t.because(t.container(c, "image"), "Signet's agent with Envoy, in the place of App Mesh's"))
	t.set(c, "command", command, t.because(t.container(c, "command"), "the image is also that of a host's agent: this is the agent of one task"))
	t.set(c, "healthCheck", t.object(
		t.member("command", healthy), t.member("interval", 5), t.member("timeout", 5), t.member("retries", 3), t.member("startPeriod", 10),
	), t.because(t.container(c, "healthCheck"), "healthy is an Envoy that serves with its identity; the image has no shell and no curl"))
	switch user := t.of(c, "user"); {
	case user == nil && t.redirects.egress != "":
		t.set(c, "user", userOfAgent, t.because(t.container(c, "user"), "the platform leaves alone what this user calls (IgnoredUID): the agent and its Envoy"))
	case user != nil && !user.is(userOfAgent):
		t.set(c, "user", userOfAgent, t.because(t.container(c, "user"), "the image's folders are that user's, and an agent that is root starts no Envoy as root"))
	}
	if arch := t.of(t.get("runtimePlatform"), "cpuArchitecture"); arch != nil && !arch.is("X86_64") {
		t.note("%s: the image %s has to be of that architecture, or of both", t.at("runtimePlatform", "cpuArchitecture"), t.options.Image)
	}
	if labels := t.of(c, "dockerLabels"); labels != nil && strings.Contains(t.d.text[labels.start:labels.end], "9901") {
		t.note("%s has 9901, App Mesh's port of Envoy's statistics, which others than this task do not reach any more: a scraper of the task's own reads 127.0.0.1:9901 with SIGNET_PROXY_ADMIN_READ_ONLY (docs/METRICS.md)", t.container(c, "dockerLabels"))
	}
	if t.of(c, "environmentFiles") != nil {
		t.note("%s: the files are not looked at: a variable in them that App Mesh had and Signet has not ends the container at its start, by name (docs/TASKS.md)", t.container(c, "environmentFiles"))
	}
	if len(t.of(c, "mountPoints").items()) > 0 {
		t.note("%s is kept: certificates that the mesh names by file need tls_dirs, in a configuration file for `signet task --config`", t.container(c, "mountPoints"))
	}
	if n, err := strconv.Atoi(t.literal(c, "memory")); err == nil && n < 256 {
		t.note("%s is %d MiB: agent, authz and Envoy have 160 MiB at 100 requests/s, and 256 leaves room (docs/TASKS.md)", t.container(c, "memory"), n)
	}
}

// convertEnvironment takes out what Signet would refuse, and says where the server is.
func (t *task) convertEnvironment() {
	c := t.envoy
	for _, key := range []string{"environment", "secrets"} {
		of := t.of(c, key)
		if of == nil {
			continue
		}
		of.remove(func(e child) bool {
			known, ok := appmeshenv.Of(t.literal(e.val, "name"))
			return ok && known.Refused != ""
		}, func(e child) *Change {
			name := t.literal(e.val, "name")
			known, _ := appmeshenv.Of(name)
			why := strings.TrimRight(strings.TrimSuffix(known.Refused, "take it out"), ":; ")
			if strings.Contains(name, "XRAY") {
				why += "; the X-Ray daemon stays, for what the application sends it"
			}
			return t.because(t.container(c, key, "["+name+"]"), "%s", why)
		})
	}
	type variable struct{ name, value, why string }
	variables := []variable{
		{"SIGNET_SERVER", t.options.Server, "routes, certificates and decisions come from this server, and not from App Mesh's endpoint"},
		{"SIGNET_TRUST_PEM", t.options.Root, "by whom the task knows the server: the trust domain's root certificate, which is public"},
		{"SIGNET_JOIN_AWS_TASK_REGION", "environment", "the task joins by its role, as it did at App Mesh: there is no token in it"},
	}
	if port := t.redirects.egress; port != "" {
		variables = append(variables, variable{"SIGNET_PROXY_CAPTURE_EGRESS", port, "the proxy takes what the platform redirects of the application's calls, by proxyConfiguration"})
	}
	if port := t.redirects.ingress; port != "" {
		variables = append(variables, variable{"SIGNET_PROXY_CAPTURE_INGRESS", port, "and of the calls of others, for AppPorts"})
	}
	if stop := t.of(c, "stopTimeout"); stop != nil && !stop.is(strconv.Itoa(usualStop)) {
		switch n, err := strconv.Atoi(stop.literal()); {
		case err != nil || n < LeastStop:
			t.set(c, "stopTimeout", usualStop, t.because(t.container(c, "stopTimeout"), "a proxy may take %d s to end without a failed request", LeastStop))
		default:
			variables = append(variables, variable{"SIGNET_STOP_TIMEOUT", fmt.Sprintf("%ds", n), "everything in the container has ended before its stopTimeout"})
		}
	}
	if asks := t.asksEnvoy(); asks != nil {
		variables = append(variables, variable{"SIGNET_PROXY_ADMIN_READ_ONLY", adminOfEnvoy, t.container(asks) + " has 9901: /ready, /server_info and /stats/prometheus can be read there still"})
	}
	var items []raw
	var whys []*Change
	for _, v := range variables {
		items = append(items, t.object(t.member("name", v.name), t.member("value", v.value)))
		whys = append(whys, t.because(t.container(c, "environment", "["+v.name+"]"), "%s", v.why))
	}
	t.add(c, "environment", whys, items...)
}

// adminOfEnvoy is where App Mesh's Envoy had its admin interface.
const adminOfEnvoy = "127.0.0.1:9901"

var adminPort = regexp.MustCompile(`\b9901\b`)

// asksEnvoy is the first container that has the port of the admin interface in what it does, nil
// where none has, or where a variable that is obeyed says the port.
func (t *task) asksEnvoy() *value {
	if slices.ContainsFunc(t.of(t.envoy, "environment").items(), func(e *value) bool { return t.literal(e, "name") == "ENVOY_ADMIN_ACCESS_PORT" }) {
		return nil
	}
	for _, c := range t.containers() {
		for _, key := range []string{"healthCheck", "command", "entryPoint", "environment"} {
			if v := t.of(c, key); c != t.envoy && v != nil && adminPort.MatchString(t.d.text[v.start:v.end]) {
				return c
			}
		}
	}
	return nil
}

func (t *task) mount() raw {
	return t.object(t.member("sourceVolume", volume), t.member("containerPath", local.SocketDir))
}

// shareVolume makes the folder by which the containers of the agent speak with each other.
func (t *task) shareVolume() {
	t.add(t.v, "volumes", []*Change{t.because(t.at("volumes"), "the folder of the agent's sockets")}, t.object(t.member("name", volume)))
	t.add(t.envoy, "mountPoints", []*Change{t.because(t.container(t.envoy, "mountPoints"), "where the container %s tells the agent to stop", stopName)}, t.mount())
}

// convertApplication has it wait for the proxy, and call through it.
func (t *task) convertApplication(c *value) {
	waits := t.object(t.member("containerName", t.name), t.member("condition", "HEALTHY"))
	switch on := t.waitsForEnvoy(c); {
	case on == nil:
		t.add(c, "dependsOn", []*Change{t.because(t.container(c, "dependsOn"), "the application starts when its proxy serves, and is stopped before it")}, waits)
	case !t.of(on, "condition").is("HEALTHY"):
		on.replace(string(waits), t.because(t.container(c, "dependsOn"), "the application starts when its proxy serves, not when the container does"))
	}
	switch t.way {
	case ByRedirection:
		return
	case ByItself:
		t.note("%s calls services of the mesh through %s, by its own configuration: nothing leads it there", t.container(c), wayOut)
		return
	case ByVariable:
		t.setVariables(c)
	}
}

// setVariables has an application call by its clients' own proxy variables.
func (t *task) setVariables(c *value) {
	without := slices.Clone(withoutProxy)
	for address := range strings.SplitSeq(t.property("EgressIgnoredIPs").literal(), ",") {
		if address = strings.TrimSpace(address); address != "" && !slices.Contains(without, address) {
			without = append(without, address)
		}
	}
	t.add(c, "environment", []*Change{
		t.because(t.container(c, "environment", "[http_proxy]"), "calls of HTTP go through the proxy, which nothing redirects them to any more"),
		t.because(t.container(c, "environment", "[no_proxy]"), "except for the task's own addresses, its metadata and credentials, and what App Mesh left alone"),
	},
		t.object(t.member("name", "http_proxy"), t.member("value", wayOut)),
		t.object(t.member("name", "no_proxy"), t.member("value", strings.Join(without, ","))),
	)
	if v := t.of(c, "environmentFiles"); v != nil {
		t.note("%s: the files are not looked at: where they have http_proxy or no_proxy, take those out, or convert with --way-out none", t.container(c, "environmentFiles"))
	}
	if asks := t.of(t.of(c, "healthCheck"), "command"); asks != nil && strings.Contains(t.d.text[asks.start:asks.end], "wget") {
		t.note("%s asks by wget, and BusyBox's obeys http_proxy and no no_proxy: what it asks of localhost goes to the proxy, and is 404. Write `wget -Y off …` there, which BusyBox's has, or `wget --no-proxy …` for GNU's", t.container(c, "healthCheck"))
	}
	t.note("%s calls through its proxy where its client obeys http_proxy (curl, Go, Python, Ruby; not Java, and Node only if told to); https and tcp go out by themselves. What obeys none, as clients of databases, finds services of the mesh at their own addresses: MeshOptions with serviceAddresses, SIGNET_PROXY_SERVICE_ADDRESSES=true at the proxy, and A records with the addresses that `signet get virtualservices -o wide` shows, in a zone that nobody but callers that have moved asks: whoever has not would call its own loopback; in a shared zone only when the last caller has moved. Services that the mesh does not declare are 404 by http_proxy: add their names to no_proxy", t.container(c))
}

// addStop adds the container that is stopped first: the application's callers are sent elsewhere before it is told to stop.
func (t *task) addStop() {
	var on []string
	for _, c := range t.applications {
		on = append(on, string(t.object(t.member("containerName", t.literal(c, "name")), t.member("condition", "START"))))
	}
	members := []string{
		t.member("name", stopName), t.member("image", t.options.Image), t.member("command", stopFirst),
		t.member("essential", false), t.member("stopTimeout", usualStop),
		t.member("dependsOn", raw("["+strings.Join(on, ", ")+"]")), t.member("mountPoints", raw("["+string(t.mount())+"]")),
	}
	if t.get("memory") == nil {
		members = append(members, t.member("memoryReservation", 32))
	}
	all := t.get("containerDefinitions")
	i := slices.IndexFunc(all.children, func(c child) bool { return c.val == t.envoy })
	all.insertBefore(i, t.item(all, t.object(members...)), t.because(t.at("containerDefinitions", "["+stopName+"]"),
		"ECS stops what depends on others first: this one, which sends callers elsewhere and waits for that, then the application, then the proxy"))
	for _, c := range t.containers() {
		if strings.Contains(t.literal(c, "image"), "xray-daemon") {
			t.note("%s is kept: the application's own segments reach it as before; Envoy sends none", t.container(c))
		}
	}
}
