package ecs_test

import (
	"encoding/json"
	"strings"
	"testing"

	"signet.example/ecs"
)

// in puts something in the place of a part of a text that is there.
func in(t *testing.T, text, old, new string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("no %s in\n%s", old, text)
	}
	return strings.Replace(text, old, new, 1)
}

// TestWhatIsNotWrittenOutIsNotReplaced: a list that is a function or stands at an anchor has what nobody here sees.
func TestWhatIsNotWrittenOutIsNotReplaced(t *testing.T) {
	stack := file(t, "stack.yaml")
	before := "      # the application comes first\n"
	for want, text := range map[string]string{
		"Resources.PaymentsTask.Properties.Volumes: is a function":                                  in(t, stack, before, "      Volumes: !If [Data, [{Name: data}], []]\n"+before),
		"Properties.Volumes: is a function, stands":                                                 in(t, stack, before, "      Volumes:\n        Fn::If: [Data, [{Name: data}], []]\n"+before),
		"Properties.Volumes: is a function, stands at an anchor":                                    in(t, stack, before, "      Volumes: &v [{Name: data}]\n"+before),
		"ContainerDefinitions[app].Secrets: is a function":                                          in(t, stack, "          Essential: true\n          DependsOn:", "          Secrets: !If [A, [], []]\n          DependsOn:"),
		"ContainerDefinitions[envoy].MountPoints: is a function":                                    in(t, stack, "          Ulimits:", "          MountPoints: &m [{SourceVolume: data, ContainerPath: /data}]\n          Ulimits:"),
		"ContainerDefinitions[envoy].HealthCheck: has the anchor &check, which is called elsewhere": in(t, in(t, stack, "          HealthCheck:\n", "          HealthCheck: &check\n"), "          LogConfiguration:\n", "          FutureKey: *check\n          LogConfiguration:\n"),
	} {
		_, err := ecs.Convert("x.yaml", text, options(t))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	anchored := in(t, stack, "          HealthCheck:\n", "          HealthCheck: &check\n")
	if _, err := ecs.Convert("x.yaml", anchored, options(t)); err != nil {
		t.Errorf("an anchor that nobody calls: %v", err)
	}
}

func TestNullIsNotThere(t *testing.T) {
	text := in(t, file(t, "orders.json"), `"tags"`, `"volumes": null, "ipcMode": null, "tags"`)
	text = in(t, text, `"image": "840364872350`, `"command": null, "mountPoints": null, "stopTimeout": null, "readonlyRootFilesystem": null, "image": "840364872350`)
	r, err := ecs.Convert("x.json", text, options(t))
	if err != nil {
		t.Fatal(err)
	}
	d := definition(t, "x.json", r.Definition)
	if d["volumes"] == nil || container(d, "envoy")["mountPoints"] == nil || !strings.Contains(r.Definition, `"ipcMode": null`) {
		t.Error(r.Definition)
	}
}

func TestAProxyOfOnesOwnIsRefusedInEitherCase(t *testing.T) {
	for _, name := range []string{"no_proxy", "NO_PROXY", "HTTPS_PROXY", "http_proxy", "ALL_PROXY"} {
		text := in(t, file(t, "orders.json"), `"PORT"`, `"`+name+`"`)
		o := options(t)
		o.WayOut = ecs.ByVariable
		_, err := ecs.Convert("x.json", text, o)
		if err == nil || !strings.Contains(err.Error(), "containerDefinitions[app].environment: has "+name+" already") {
			t.Errorf("%s: %v", name, err)
		}
		for _, o.WayOut = range []ecs.WayOut{ecs.ByItself, ecs.ByRedirection} {
			if _, err := ecs.Convert("x.json", text, o); err != nil {
				t.Errorf("%s, and nothing is set: %v", name, err)
			}
		}
	}
}

// TestWhatSomebodyHasToLookAtIsNoted: each note by what is in the definition, and not without it.
func TestWhatSomebodyHasToLookAtIsNoted(t *testing.T) {
	orders := file(t, "orders.json")
	for want, more := range map[string]string{
		"EgressIgnoredIPs is a function":                                "EgressIgnoredIPs",
		"runtimePlatform.cpuArchitecture: the image":                    "ARM64",
		"containerDefinitions[envoy].dockerLabels has 9901":             "dockerLabels",
		"containerDefinitions[app].healthCheck asks by wget":            `"healthCheck": {"command": ["CMD-SHELL", "wget -q http://localhost:8080/ping"]}, `,
		"containerDefinitions[app].environmentFiles: the files are not": `"environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::b/x.env"}], `,
	} {
		for _, there := range []bool{true, false} {
			text := orders
			switch {
			case !there:
			case more == "EgressIgnoredIPs":
				text = in(t, orders, `"value": "169.254.170.2,169.254.169.254"`, `"value": {"Ref": "Ignored"}`)
			case more == "ARM64":
				text = in(t, orders, `"tags"`, `"runtimePlatform": {"cpuArchitecture": "ARM64"}, "tags"`)
			case more == "dockerLabels":
				text = in(t, orders, `"user": "1337",
            "ulimits"`, `"user": "1337", "dockerLabels": {"prometheus-port": "9901"},
            "ulimits"`)
			default:
				text = in(t, orders, `"portMappings": [{"containerPort": 8080`, more+`"portMappings": [{"containerPort": 8080`)
			}
			r := by(t, ecs.ByVariable, "x.json", text)
			if noted := strings.Contains(strings.Join(r.Notes, "\n"), want); noted != there {
				t.Errorf("%s: %v, in\n%s", want, noted, strings.Join(r.Notes, "\n"))
			}
		}
	}
}

// TestAnApplicationThatDoesNotWaitIsFoundByItsPortsOrAsTheOnlyOne: no container has to depend on the Envoy.
func TestAnApplicationThatDoesNotWaitIsFoundByItsPortsOrAsTheOnlyOne(t *testing.T) {
	alone := in(t, file(t, "orders.json"), `"dependsOn": [{"containerName": "envoy", "condition": "HEALTHY"}],`, "")
	for name, text := range map[string]string{"by its ports": alone, "as the only one": in(t, alone, `"portMappings": [{"containerPort": 8080, "protocol": "tcp"}],`, "")} {
		r := by(t, ecs.ByVariable, "x.json", text)
		d := definition(t, "x.json", r.Definition)
		if container(d, "signet-stop") == nil || environment(container(d, "app"))["http_proxy"] == nil || container(d, "app")["dependsOn"] == nil || container(d, "xray-daemon")["dependsOn"] != nil {
			t.Errorf("%s: nobody is the application:\n%s", name, r.Definition)
		}
	}
}

func TestWhoWaitsForWhatWaitsForTheEnvoyIsAnApplication(t *testing.T) {
	text := in(t, file(t, "orders.json"), `"dependsOn": [{"containerName": "envoy", "condition": "HEALTHY"}],`, `"dependsOn": [{"containerName": "migration", "condition": "SUCCESS"}, {"containerName": "round", "condition": "START"}],`)
	text = in(t, text, `"containerDefinitions": [`, `"containerDefinitions": [
        {"name": "migration", "image": "m:1", "essential": false, "dependsOn": [{"containerName": "envoy", "condition": "HEALTHY"}]},
        {"name": "round", "image": "r:1", "dependsOn": [{"containerName": "round", "condition": "START"}]},`)
	r := by(t, ecs.ByVariable, "x.json", text)
	d := definition(t, "x.json", r.Definition)
	for name, want := range map[string]bool{"migration": true, "app": true, "round": false} {
		if got := environment(container(d, name))["http_proxy"] != nil; got != want {
			t.Errorf("%s is an application: %v", name, got)
		}
	}
}

// TestNobodyWaitsForAProxyThatWaitsForHim: ECS registers no definition whose containers wait for each other in a circle.
func TestNobodyWaitsForAProxyThatWaitsForHim(t *testing.T) {
	envoyWaits := func(text, name string) string {
		return in(t, text, `"image": "840364872350`, `"dependsOn": [{"containerName": "`+name+`", "condition": "SUCCESS"}], "image": "840364872350`)
	}
	waits := `"dependsOn": [{"containerName": "envoy", "condition": "HEALTHY"}],`
	alone := in(t, file(t, "orders.json"), waits, "")
	fetch := in(t, in(t, alone, `"portMappings": [{"containerPort": 8080, "protocol": "tcp"}],`, ""), `"containerDefinitions": [`, `"containerDefinitions": [
        {"name": "fetch", "image": "m:1", "essential": false, "dependsOn": [{"containerName": "first", "condition": "SUCCESS"}]},
        {"name": "first", "image": "m:1", "essential": false},`)
	d := definition(t, "x.json", by(t, "", "x.json", envoyWaits(fetch, "fetch")).Definition)
	for name, want := range map[string]bool{"fetch": false, "first": false, "app": true} {
		on, _ := json.Marshal(container(d, name)["dependsOn"])
		if got := strings.Contains(string(on), `"envoy"`); got != want {
			t.Errorf("%s waits for the proxy: %t", name, got)
		}
	}
	named := options(t)
	named.Applications = []string{"first"}
	for name, c := range map[string]struct {
		text string
		o    ecs.Options
	}{
		"the only one":           {envoyWaits(alone, "app"), options(t)},
		"one that waits already": {envoyWaits(file(t, "orders.json"), "app"), options(t)},
		"one that is named":      {envoyWaits(fetch, "fetch"), named},
	} {
		if _, err := ecs.Convert("x.json", c.text, c.o); err == nil || !strings.Contains(err.Error(), "containerDefinitions[envoy].dependsOn: the proxy waits for ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnApplicationThatIsNamedTwiceIsOne(t *testing.T) {
	o := options(t)
	o.WayOut, o.Applications = ecs.ByVariable, []string{"app"}
	once, err := ecs.Convert("x.json", file(t, "orders.json"), o)
	if err != nil {
		t.Fatal(err)
	}
	o.Applications = []string{"app", "app"}
	if twice, err := ecs.Convert("x.json", file(t, "orders.json"), o); err != nil || twice.Definition != once.Definition {
		t.Errorf("%v:\n%s", err, twice.Definition)
	}
}

func TestAGatewayIsKnownByTheTextOfItsFunction(t *testing.T) {
	stack := file(t, "stack.yaml")
	for _, value := range []string{"!Sub 'mesh/${MeshName}/virtualGateway/edge'", "!Join ['/', [mesh, !Ref MeshName, virtualGateway, edge]]"} {
		r, err := ecs.Convert("x.yaml", in(t, stack, "!Sub 'mesh/${MeshName}/virtualNode/payments'", value), options(t))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(r.Definition, "signet-stop") || strings.Contains(r.Definition, "http_proxy") || r.Objects != "" {
			t.Errorf("%s: somebody is behind it", value)
		}
	}
}

// What is not led through the proxy by a variable has another way, which the note says in words to paste.
func TestWhoObeysNoVariableIsToldOfTheAddressesOfServices(t *testing.T) {
	for way, want := range map[ecs.WayOut]bool{ecs.ByVariable: true, "none": false} {
		r := by(t, way, "x.json", file(t, "orders.json"))
		notes := strings.Join(r.Notes, "\n")
		for _, says := range []string{"SIGNET_PROXY_SERVICE_ADDRESSES=true", "in a shared zone only when the last caller has moved"} {
			if strings.Contains(notes, says) != want {
				t.Errorf("%s: %s", way, notes)
			}
		}
	}
}
