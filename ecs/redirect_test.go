package ecs_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"signet.example/ecs"
)

// redirected are the ports that the agent is told.
func redirected(envoy map[string]any) string {
	env := environment(envoy)
	return fmt.Sprintf("%v out, %v in", env["SIGNET_PROXY_CAPTURE_EGRESS"], env["SIGNET_PROXY_CAPTURE_INGRESS"])
}

func TestTheRedirectionStaysAndNothingChangesInTheApplication(t *testing.T) {
	for _, c := range cases {
		r := convert(t, c.file)
		was, is := definition(t, c.file, file(t, c.file)), definition(t, c.file, r.Definition)
		if is["proxyConfiguration"] == nil || !reflect.DeepEqual(was["proxyConfiguration"], is["proxyConfiguration"]) {
			t.Errorf("%s: the redirection was %v, is %v", c.file, was["proxyConfiguration"], is["proxyConfiguration"])
		}
		envoy, app := container(is, c.envoy), container(is, c.app)
		if got := redirected(envoy); got != "15001 out, 15000 in" || envoy["user"] != "1337" {
			t.Errorf("%s: the agent takes %s, as user %v", c.file, got, envoy["user"])
		}
		before := container(was, c.app)
		for _, d := range []map[string]any{before, app} {
			delete(d, "dependsOn")
		}
		if !reflect.DeepEqual(before, app) {
			t.Errorf("%s: the application was %v, is %v", c.file, before, app)
		}
	}
}

func TestWithoutRedirectionTheApplicationCallsByItsVariables(t *testing.T) {
	for _, c := range cases {
		d := definition(t, c.file, by(t, ecs.ByVariable, c.file, file(t, c.file)).Definition)
		if d["proxyConfiguration"] != nil || redirected(container(d, c.envoy)) != "<nil> out, <nil> in" {
			t.Errorf("%s: something is redirected to where nobody listens", c.file)
		}
		env := environment(container(d, c.app))
		if env["http_proxy"] != "http://127.0.0.1:15001" || !strings.Contains(fmt.Sprint(env["no_proxy"]), "169.254.170.2") {
			t.Errorf("%s: the application has %v", c.file, env)
		}
		for name, value := range environment(container(definition(t, c.file, file(t, c.file)), c.app)) {
			if !reflect.DeepEqual(env[name], value) {
				t.Errorf("%s: %s was %v, is %v", c.file, name, value, env[name])
			}
		}
	}
}

// TestTheAgentHasThePortsOfTheRedirection: others than App Mesh's usual ones, and none where nothing comes in.
func TestTheAgentHasThePortsOfTheRedirection(t *testing.T) {
	orders := file(t, "orders.json")
	others := in(t, in(t, orders, `"ProxyIngressPort", "value": "15000"`, `"ProxyIngressPort", "value": "9000"`), `"ProxyEgressPort", "value": "15001"`, `"ProxyEgressPort", "value": "9001"`)
	for want, text := range map[string]string{
		"9001 out, 9000 in":   others,
		"15001 out, <nil> in": in(t, orders, `"AppPorts", "value": "8080"`, `"AppPorts", "value": ""`),
		"15001 out, 15000 in": in(t, orders, `"AppPorts", "value": "8080"`, `"AppPorts", "value": {"Ref": "Ports"}`),
	} {
		r := by(t, ecs.ByRedirection, "x.json", text)
		if got := redirected(container(definition(t, "x.json", r.Definition), "envoy")); got != want {
			t.Errorf("the agent takes %s, want %s", got, want)
		}
		listens := strings.Contains(strings.Join(r.Notes, "\n"), "the application listens on 127.0.0.1, not on 0.0.0.0")
		if listens != strings.Contains(want, "<nil> in") {
			t.Errorf("%s: %q", want, r.Notes)
		}
	}
}

func TestARedirectionThatTheProxyCannotTakeIsRefusedByName(t *testing.T) {
	orders := file(t, "orders.json")
	property := func(name, value string) string { return fmt.Sprintf(`{"name": %q, "value": %s}`, name, value) }
	uid, appPorts := property("IgnoredUID", `"1337"`), property("AppPorts", `"8080"`)
	ingress, egress := property("ProxyIngressPort", `"15000"`), property("ProxyEgressPort", `"15001"`)
	for want, text := range map[string]string{
		"x.json:13:45: proxyConfiguration.properties[IgnoredUID]: want 1337": in(t, orders, uid, property("IgnoredUID", `"1500"`)),
		"properties[IgnoredUID]: want 1337, as whom":                         in(t, orders, uid, property("IgnoredGID", `"1337"`)),
		"properties[ProxyEgressPort]: want a port":                           in(t, orders, egress, property("ProxyEgressPort", `"x"`)),
		"properties[ProxyIngressPort]: want a port":                          in(t, orders, ingress, property("ProxyIngressPort", `{"Ref": "Port"}`)),
		"properties[ProxyIngressPort]: is that of ProxyEgressPort too":       in(t, orders, ingress, property("ProxyIngressPort", `"15001"`)),
		"properties[AppPorts]: 15001 is a port of the proxy's":               in(t, orders, appPorts, property("AppPorts", `"8080, 15001"`)),
		"properties[EgressLeftAlone]: want one of IgnoredUID":                in(t, orders, `"EgressIgnoredIPs"`, `"EgressLeftAlone"`),
		"proxyConfiguration.properties: is a function":                       in(t, in(t, orders, `"properties": [`, `"properties": {"Fn::If": [`), "169.254.169.254\"}\n        ]", "169.254.169.254\"}\n        ]}"),
	} {
		if _, err := ecs.Convert("x.json", text, options(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		by(t, ecs.ByVariable, "x.json", text) // as the refusal says
	}
	o := options(t)
	o.WayOut = ecs.ByRedirection
	missing := in(t, orders, `"proxyConfiguration"`, `"other"`)
	if _, err := ecs.Convert("x.json", missing, o); err == nil || !strings.Contains(err.Error(), "proxyConfiguration: is missing, by which the platform redirects") {
		t.Errorf("nothing redirects: %v", err)
	}
	if env := environment(container(definition(t, "x.json", by(t, "", "x.json", missing).Definition), "app")); env["http_proxy"] == nil {
		t.Errorf("without redirection the application has %v", env)
	}
}

func TestAGatewayIsNotRedirected(t *testing.T) {
	text := in(t, file(t, "edge.json"), `"cpu"`, `"proxyConfiguration": {"type": "APPMESH", "containerName": "envoy", "properties": []}, "cpu"`)
	for _, way := range []ecs.WayOut{"", ecs.ByRedirection, ecs.ByVariable} {
		d := definition(t, "x.json", by(t, way, "x.json", text).Definition)
		if d["proxyConfiguration"] != nil || redirected(container(d, "envoy")) != "<nil> out, <nil> in" {
			t.Errorf("way out %q: %v", way, d)
		}
	}
}
