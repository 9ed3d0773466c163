package ecs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"signet.example/ecs"
	"signet.example/internal/manifest"
	"signet.example/mesh/dialect/cloudformation"
)

// root is a root certificate as `signet init` makes it.
func root(tb testing.TB) string {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), URIs: []*url.URL{{Scheme: "spiffe", Host: "prod.example"}}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func options(tb testing.TB) ecs.Options {
	tb.Helper()
	return ecs.Options{Server: "mesh.internal:8443", Image: "123456789012.dkr.ecr.eu-central-1.amazonaws.com/signet-agent:1", Root: root(tb)}
}

func file(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func convert(t *testing.T, name string) *ecs.Result {
	t.Helper()
	return by(t, "", name, file(t, name))
}

// by converts a text with a way out.
func by(t *testing.T, way ecs.WayOut, name, text string) *ecs.Result {
	t.Helper()
	o := options(t)
	o.WayOut = way
	r, err := ecs.Convert(name, text, o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r
}

// definition is one as a program reads it, with names in the spelling of register-task-definition.
func definition(t *testing.T, name, text string) map[string]any {
	t.Helper()
	var d map[string]any
	if strings.HasSuffix(name, ".yaml") {
		nodes, errs := manifest.Form{Tags: cloudformation.Tags}.Read(name, []byte(text))
		if err := errs.OrNil(); err != nil {
			t.Fatal(err)
		}
		d = plain(nodes[0]).(map[string]any)
	} else if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
	if resources, ok := d["Resources"].(map[string]any); ok {
		for _, r := range resources {
			if p, ok := r.(map[string]any)["Properties"].(map[string]any); ok && p["ContainerDefinitions"] != nil && strings.Contains(fmt.Sprint(p), "envoy") {
				return lower(p).(map[string]any)
			}
		}
	}
	if described, ok := d["taskDefinition"].(map[string]any); ok {
		described["tags"] = d["tags"]
		return described
	}
	return d
}

func plain(n manifest.Node) any {
	switch n.Is() {
	case manifest.Mapping:
		m := map[string]any{}
		for _, x := range n.Members() {
			m[x.Name] = plain(x.Value)
		}
		return m
	case manifest.List:
		list := []any{}
		for _, x := range n.Items() {
			list = append(list, plain(x))
		}
		return list
	}
	return n.Text()
}

func lower(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for name, x := range v {
			m[strings.ToLower(name[:1])+name[1:]] = lower(x)
		}
		return m
	case []any:
		for i := range v {
			v[i] = lower(v[i])
		}
	}
	return v
}

func container(d map[string]any, name string) map[string]any {
	for _, c := range d["containerDefinitions"].([]any) {
		if c := c.(map[string]any); c["name"] == name {
			return c
		}
	}
	return nil
}

func environment(c map[string]any) map[string]any {
	env := map[string]any{}
	list, _ := c["environment"].([]any)
	for _, e := range list {
		env[fmt.Sprint(e.(map[string]any)["name"])] = e.(map[string]any)["value"]
	}
	return env
}

// cases are definitions with an application, its container's name and that of its Envoy.
var cases = []struct {
	file, app, envoy string
	most             int // lines that are written
}{
	{"orders.json", "app", "envoy", 12},
	{"front.json", "front", "proxy", 18}, // with a line for each brace: neighbours' commas, START in the place of HEALTHY, a stopTimeout
	{"described.json", "app", "envoy", 13},
	{"oneline.json", "app", "envoy", 13},
	{"stack.yaml", "app", "envoy", 12},
	{"synthesized.json", "ship", "envoy", 12},
}

func TestAnOrdinaryTaskIsConvertedByTwelveLines(t *testing.T) {
	for _, c := range cases {
		for _, way := range []ecs.WayOut{"", ecs.ByVariable} {
			r := by(t, way, c.file, file(t, c.file))
			for _, l := range r.Diff {
				if l.Reason == "" || l.Path == "" {
					t.Errorf("%s: no reason for %s %s", c.file, l.Op, l.Text)
				}
			}
			t.Logf("%s, way out %q: %d lines written, %d taken out", c.file, way, r.Written, r.TakenOut)
			if r.Written > c.most || r.Written == 0 {
				t.Errorf("%s, way out %q: %d lines are written, %d at most", c.file, way, r.Written, c.most)
				for _, l := range r.Diff {
					t.Log(l.Op, l.Text, "//", l.Path, l.Reason)
				}
			}
		}
	}
}

func TestTheProxyIsTheAgentAndTheApplicationWaitsForIt(t *testing.T) {
	for _, c := range cases {
		r := convert(t, c.file)
		d := definition(t, c.file, r.Definition)
		envoy, app, stop := container(d, c.envoy), container(d, c.app), container(d, "signet-stop")
		if !reflect.DeepEqual(envoy["command"], []any{"task"}) || !strings.HasSuffix(fmt.Sprint(envoy["image"]), "/signet-agent:1") ||
			fmt.Sprint(envoy["healthCheck"].(map[string]any)["command"]) != "[CMD signet agent health --wait 4s]" {
			t.Errorf("%s: the proxy is %v", c.file, envoy)
		}
		if !strings.Contains(fmt.Sprint(app["dependsOn"]), fmt.Sprintf("condition:HEALTHY containerName:%s", c.envoy)) {
			t.Errorf("%s: the application depends on %v", c.file, app["dependsOn"])
		}
		if fmt.Sprint(stop["dependsOn"]) != fmt.Sprintf("[map[condition:START containerName:%s]]", c.app) || fmt.Sprint(stop["command"]) != "[agent stop --on-term]" || fmt.Sprint(stop["essential"]) != "false" {
			t.Errorf("%s: the first to stop is %v", c.file, stop)
		}
		mount := "[map[containerPath:/run/signet sourceVolume:signet]]"
		if fmt.Sprint(stop["mountPoints"]) != mount || fmt.Sprint(envoy["mountPoints"]) != mount || fmt.Sprint(d["volumes"]) != "[map[name:signet]]" {
			t.Errorf("%s: volumes %v, mounted at %v and %v", c.file, d["volumes"], stop["mountPoints"], envoy["mountPoints"])
		}
		if app["mountPoints"] != nil {
			t.Errorf("%s: the application has the agent's sockets, without an Entry for it", c.file)
		}
	}
}

func TestWhatAsksEnvoysAdminPortFindsItStill(t *testing.T) {
	orders := file(t, "orders.json")
	const given = `"value": "127.0.0.1:9901"`
	asks := `"healthCheck": {"command": ["CMD-SHELL", "curl -s http://localhost:9901/ready"]}, `
	for name, c := range map[string]struct {
		more, variable string
		want           bool
	}{
		"nobody asks":           {"", "", false},
		"the application asks":  {asks, "", true},
		"its command says it":   {`"command": ["serve", "--proxy", "http://127.0.0.1:9901"], `, "", true},
		"another number":        {`"command": ["serve", "--account", "199012"], `, "", false},
		"a variable is obeyed":  {asks, `{"name": "ENVOY_ADMIN_ACCESS_PORT", "value": "9901"}, `, false},
		"where nobody has said": {"", `{"name": "ENVOY_ADMIN_ACCESS_PORT", "value": "9902"}, `, false},
	} {
		text := orders
		if c.more != "" {
			text = in(t, text, `"portMappings": [{"containerPort": 8080`, c.more+`"portMappings": [{"containerPort": 8080`)
		}
		if c.variable != "" {
			text = in(t, text, `{"name": "APPMESH_RESOURCE_ARN"`, c.variable+`{"name": "APPMESH_RESOURCE_ARN"`)
		}
		r, err := ecs.Convert("x.json", text, options(t))
		if err != nil {
			t.Fatal(name, err)
		}
		if got := strings.Contains(r.Definition, `"SIGNET_PROXY_ADMIN_READ_ONLY"`) && strings.Contains(r.Definition, given); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if kept := strings.Contains(r.Definition, "ENVOY_ADMIN_ACCESS_PORT"); kept != (c.variable != "") {
			t.Errorf("%s: the variable that is obeyed is there: %v", name, kept)
		}
	}
}

func TestAGatewayHasNoApplication(t *testing.T) {
	r := convert(t, "edge.json")
	d := definition(t, "edge.json", r.Definition)
	if container(d, "signet-stop") != nil || d["volumes"] != nil || len(environment(container(d, "xray-daemon"))) != 0 {
		t.Errorf("a gateway is converted as if somebody were behind it:\n%s", r.Definition)
	}
	if !strings.Contains(r.Objects, `virtualGateway: "edge"`) || strings.Contains(r.Objects, "applications") || r.Written > 6 {
		t.Errorf("%d lines, and\n%s", r.Written, r.Objects)
	}
}

// TestWhatIsNotOfTheProxyStaysAsItIs compares all values, and the lines of the text.
func TestWhatIsNotOfTheProxyStaysAsItIs(t *testing.T) {
	for _, c := range cases {
		r := convert(t, c.file)
		was, is := definition(t, c.file, file(t, c.file)), definition(t, c.file, r.Definition)
		for _, key := range []string{"taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt", "registeredBy"} {
			if is[key] != nil {
				t.Errorf("%s: register-task-definition refuses %s", c.file, key)
			}
			delete(was, key)
		}
		for _, d := range []map[string]any{was, is} {
			delete(d, "volumes")
			var kept []any
			for _, one := range d["containerDefinitions"].([]any) {
				one := one.(map[string]any)
				if one["name"] == "signet-stop" {
					continue
				}
				delete(one, "dependsOn")
				if one["name"] == c.envoy {
					for _, key := range []string{"image", "command", "healthCheck", "mountPoints", "environment", "user"} {
						delete(one, key)
					}
				}
				kept = append(kept, one)
			}
			d["containerDefinitions"] = kept
		}
		if !reflect.DeepEqual(was, is) {
			t.Errorf("%s: was\n%v, is\n%v", c.file, was, is)
		}
	}
	front := convert(t, "front.json").Definition
	for _, kept := range []string{"1.50", "12345678901234567890", `"futureKey": {`} {
		if !strings.Contains(front, kept) {
			t.Errorf("lost: %s", kept)
		}
	}
	stack := convert(t, "stack.yaml").Definition
	for _, kept := range []string{"# A service of the mesh, as its stack was written in 2021.", "  BatchTask:          # not in the mesh", "# the application comes first", "# what App Mesh traced", `        Fn::ImportValue: !Sub "${MeshName}:ExecutionRole"`, "              awslogs-group: !Ref Logs\n\n  Service:"} {
		if !strings.Contains(stack, kept) {
			t.Errorf("lost: %s in\n%s", kept, stack)
		}
	}
}

func TestNoSecretIsInTheReport(t *testing.T) {
	for _, c := range cases {
		r := convert(t, c.file)
		r.Definition = ""
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "not-for-the-report") {
			t.Errorf("%s: %s", c.file, b)
		}
	}
}

func TestATextIsJoinedAsItWasTakenApart(t *testing.T) {
	names, err := filepath.Glob("testdata/*.*")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		text := file(t, filepath.Base(name))
		for _, text := range []string{text, strings.ReplaceAll(text, "\n", "\r\n")} {
			if got, ok := ecs.Rejoined(name, text); !ok || got != text {
				t.Errorf("%s: joined as\n%s", name, got)
			}
		}
	}
}

func TestWhatCannotBeConvertedIsRefusedByName(t *testing.T) {
	orders, edge := file(t, "orders.json"), file(t, "edge.json")
	in := func(text, old, new string) string {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("no %s", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	for want, text := range map[string]string{
		"x.json:1:1: want a task definition":                                      "{\n\"a\": 1}",
		"x.json:1:1: a list, as Terraform's":                                      `[]`,
		"x.json: is empty":                                                        " \n",
		"x.json:1:2: is no JSON":                                                  "{\n",
		"none of its 0 AWS::ECS::TaskDefinition":                                  `{"Resources": {}}`,
		"no container has App Mesh's Envoy":                                       `{"containerDefinitions": [{"name": "a", "image": "nginx"}]}`,
		`proxyConfiguration.containerName: there is no container "evoy"`:          in(orders, `"containerName": "envoy"`, `"containerName": "evoy"`),
		"x.json:5:20: networkMode: is bridge":                                     in(orders, `"awsvpc"`, `"bridge"`),
		"taskRoleArn: is missing":                                                 in(orders, `"taskRoleArn"`, `"taskRole"`),
		"containerDefinitions[envoy].entryPoint: a program of yours starts Envoy": in(edge, `"essential"`, `"entryPoint": ["/start.sh"], "essential"`),
		"containerDefinitions[envoy].readonlyRootFilesystem: the agent writes":    in(edge, `"essential"`, `"readonlyRootFilesystem": true, "essential"`),
		"containerDefinitions[envoy].environment: no variable says":               in(edge, "APPMESH_RESOURCE_ARN", "OTHER"),
		"virtualRouter is not served, virtualNode and virtualGateway are":         in(edge, "virtualGateway/", "virtualRouter/"),
		`volumes: has a volume "signet"`:                                          in(orders, `"tags"`, `"volumes": [{"name": "signet"}], "tags"`),
		"has SIGNET_SERVER: it is converted already":                              in(edge, "ENVOY_LOG_LEVEL", "SIGNET_SERVER"),
		"proxyConfiguration.type: want APPMESH":                                   in(orders, `"APPMESH"`, `"OTHER"`),
		"runtimePlatform.operatingSystemFamily: is WINDOWS_SERVER_2022_CORE":      in(edge, `"cpu"`, `"runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}, "cpu"`),
		"containerDefinitions: 2 containers have App Mesh's Envoy":                in(edge, "amazon/aws-xray-daemon", "aws-appmesh-envoy"),
		`"name" is there twice`:                                                   in(edge, `"essential"`, `"name": "b", "essential"`),
		"containerDefinitions[envoy].environment: is a function":                  strings.ReplaceAll(in(edge, `"environment": [`, `"environment": {"Fn::If": [`), "      ],\n      \"healthCheck\"", "      ]},\n      \"healthCheck\""),
	} {
		_, err := ecs.Convert("x.json", text, options(t))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestOptionsThatNoTaskCouldStartWithAreRefused(t *testing.T) {
	good := options(t)
	for want, change := range map[string]func(*ecs.Options){
		"server: want host:port": func(o *ecs.Options) { o.Server = "mesh.internal" },
		"image: want the image":  func(o *ecs.Options) { o.Image = "" },
		"way out: want":          func(o *ecs.Options) { o.WayOut = "iptables" },
		"trust: want the trust domain's root": func(o *ecs.Options) {
			o.Root += string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}))
		},
		`there is no container "web"`: func(o *ecs.Options) { o.Applications = []string{"web"} },
	} {
		o := good
		change(&o)
		if _, err := ecs.Convert("orders.json", file(t, "orders.json"), o); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// TestNothingButCertificatesOfTheTrustFileIsInADefinition: the whole file is written into it.
func TestNothingButCertificatesOfTheTrustFileIsInADefinition(t *testing.T) {
	const begin, secret = "-----BEGIN CERTIFICATE-----\n", "hidden-1"
	o := options(t)
	body, _ := strings.CutPrefix(o.Root, begin)
	for name, text := range map[string]string{
		"before it":         "password: " + secret + "\n" + o.Root,
		"between two":       o.Root + secret + "\n" + o.Root,
		"in its head":       begin + "Key: " + secret + "\n\n" + body,
		"in a broken one":   begin + secret + "\n" + o.Root,
		"another broken":    "-----BEGIN PRIVATE KEY-----\n" + secret + "\n" + o.Root,
		"on its first line": secret + " " + o.Root,
	} {
		bad := o
		bad.Root = text
		if r, err := ecs.Convert("orders.json", file(t, "orders.json"), bad); err == nil {
			t.Errorf("%s: it is taken, and in the definition: %v", name, strings.Contains(r.Definition, secret))
		} else if !strings.Contains(err.Error(), "and nothing else") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{"two": o.Root + "\n" + o.Root, "of Windows": strings.ReplaceAll(o.Root, "\n", "\r\n"), "on one line": begin + strings.ReplaceAll(strings.TrimSuffix(body, "-----END CERTIFICATE-----\n"), "\n", "") + "\n-----END CERTIFICATE-----"} {
		good := o
		good.Root = text
		if _, err := ecs.Convert("orders.json", file(t, "orders.json"), good); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheRoleOfTheTaskMayAskForTokensOfThisTrustDomainAlone(t *testing.T) {
	r := convert(t, "orders.json")
	if len(r.IAM) != 1 || r.IAM[0].Role != "arn:aws:iam::123456789012:role/orders-task" {
		t.Fatalf("%+v", r.IAM)
	}
	var statement struct{ Action string }
	if err := json.Unmarshal([]byte(r.IAM[0].Add[0]), &statement); err != nil || statement.Action != "sts:GetWebIdentityToken" || !strings.Contains(r.IAM[0].Add[0], `"signet:prod.example:*"`) {
		t.Errorf("%v: %s", err, r.IAM[0].Add[0])
	}
	if !strings.Contains(r.IAM[0].Remove[0], "appmesh:StreamAggregatedResources") {
		t.Errorf("%v", r.IAM[0].Remove)
	}
}

func TestDefinitionsOfOnesOwnAreJSON(t *testing.T) {
	for name, of := range map[string]func(ecs.Own) (string, error){"server": ecs.Server, "agent": ecs.Agent} {
		for _, o := range []ecs.Own{{Image: "signet:1"}, {Image: "signet:1", LogGroup: "mesh", Region: "eu-central-1"}} {
			text, err := of(o)
			if err != nil {
				t.Fatal(err)
			}
			d := definition(t, name+".json", text)
			c := container(d, "signet-"+name)
			if c["image"] != "signet:1" || (c["logConfiguration"] != nil) != (o.LogGroup != "") {
				t.Errorf("%s: %v", name, c)
			}
		}
		for _, o := range []ecs.Own{{}, {Image: "a b"}, {Image: "a", Region: "r"}} {
			if _, err := of(o); err == nil {
				t.Errorf("%s: %+v is taken", name, o)
			}
		}
	}
}

func FuzzConvert(f *testing.F) {
	names, err := filepath.Glob("testdata/*.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		f.Add(file(f, filepath.Base(name)))
	}
	o := options(f)
	f.Fuzz(func(t *testing.T, text string) {
		if got, ok := ecs.Rejoined("x", text); ok && got != strings.TrimPrefix(text, "\ufeff") {
			t.Errorf("joined as\n%q\nwas\n%q", got, text)
		}
		r, err := ecs.Convert("x", text, o)
		if err != nil {
			if strings.Contains(err.Error(), "internal error") {
				t.Error(err)
			}
			return
		}
		if _, err := ecs.Convert("x", r.Definition, o); err == nil {
			t.Error("what is converted is converted again")
		}
	})
}
