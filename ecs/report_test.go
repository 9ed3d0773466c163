package ecs_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"signet.example/ecs"
)

// TestWhatMayBeASecretIsInNoLineThatChanges: other parts of a container stand on the line of an edit.
func TestWhatMayBeASecretIsInNoLineThatChanges(t *testing.T) {
	stack := file(t, "stack.yaml")
	app := stack[strings.Index(stack, "        - Name: app\n"):strings.Index(stack, "        - Name: xray-daemon\n")]
	for name, container := range map[string]string{
		"a function":  "        - {Name: app, Image: a, Environment: [!If [A, {Name: DB, Value: hidden-1}, !Ref 'AWS::NoValue'], {Name: X, Value: hidden-2}], Secrets: [!If [A, {Name: hidden-3}, {}]]}\n",
		"an anchor":   "        - {Name: app, Image: a, Environment: [&db {Name: DB, Value: hidden-1}]}\n",
		"a command":   "        - {Name: app, Image: a, Command: [run, --password, hidden-1], EntryPoint: [sh, hidden-2], HealthCheck: {Command: [CMD, hidden-3]}}\n",
		"its command": "        - {Name: app, Image: a, Command: !If [A, [hidden-1], [hidden-2]]}\n",
		"a log":       "        - {Name: app, Image: a, LogConfiguration: {LogDriver: splunk, Options: {splunk-token: hidden-1}}, DockerLabels: {key: hidden-2}}\n",
	} {
		r, err := ecs.Convert("x.yaml", in(t, stack, app, container), options(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.Contains(r.Definition, "hidden-1") {
			t.Errorf("%s: is lost", name)
		}
		r.Definition = ""
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(b), "hidden-"); i >= 0 {
			t.Errorf("%s: …%s…", name, string(b)[max(0, i-200):i+10])
		}
		if !strings.Contains(string(b), "Name: app") || !strings.Contains(string(b), `--on-term`) {
			t.Errorf("%s: the line is not in the diff", name)
		}
	}
}

// TestThePasswordOfAVolumeIsInNoLineThatChanges: the agent's volume is put beside it, on its line.
func TestThePasswordOfAVolumeIsInNoLineThatChanges(t *testing.T) {
	r := by(t, "", "x.json", in(t, file(t, "orders.json"), `"tags"`, `"volumes": [{"name": "share", "dockerVolumeConfiguration": {"driverOpts": {"o": "password=hidden-1"}, "labels": {"key": "hidden-2"}}}], "tags"`))
	lines, err := json.Marshal(r.Diff)
	if err != nil || !strings.Contains(r.Definition, "hidden-1") || !strings.Contains(string(lines), "driverOpts") || strings.Contains(string(lines), "hidden-") {
		t.Errorf("%v: %s", err, lines)
	}
}

func TestObjectsOfDifferentProxiesHaveDifferentNames(t *testing.T) {
	orders, seen := file(t, "orders.json"), map[string]string{}
	for _, c := range []struct{ role, proxy, group, binding, account string }{
		{"orders-task", "mesh/shop/virtualNode/orders", `"123456789012.orders-task"`, `"shop.orders"`, ""},
		{"Orders_Task", "mesh/shop/virtualNode/Orders", `"123456789012.Orders_Task"`, `"shop.Orders"`, ""},
		{"orders_task", "mesh/shop/virtualNode/or-ders", `"123456789012.orders_task"`, `"shop.or-ders"`, ""},
		{"orders.task", "mesh/shop/virtualNode/or_ders", `"123456789012.orders.task"`, `"shop.or_ders"`, ""},
		{"orders+task", "mesh/shop-or/virtualNode/ders", `"123456789012.orders-task-`, `"shop-or.ders"`, ""},
		{"orders=task", "mesh/shop.or/virtualNode/ders", `"123456789012.orders-task-`, `"shop.or.ders-`, ""},
		{"orders@task", "mesh/shop/virtualNode/or.ders", `"123456789012.orders-task-`, `"shop.or.ders-`, ""},
		{"orders,task", "mesh/shop/virtualGateway/orders", `"123456789012.orders-task-`, `"shop.gateway.orders"`, ""},
		{"orders/task", "mesh/shop/virtualNode/gateway.orders", `"123456789012.task-`, `"shop.gateway.orders-`, ""},
		{"orders-task", "mesh/books/virtualNode/orders", `"210987654321.orders-task"`, `"books.orders"`, "210987654321"},
		{"x/task", "mesh/books/virtualNode/x", `"123456789012.task-`, `"books.x"`, ""},
	} {
		text := in(t, in(t, orders, "123456789012:role/orders-task", cmp.Or(c.account, "123456789012")+":role/"+c.role), "mesh/shop/virtualNode/orders", c.proxy)
		r, err := ecs.Convert("x.json", text, options(t))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for line := range strings.Lines(r.Objects) {
			if name, ok := strings.CutPrefix(line, "metadata: {name: "); ok {
				names = append(names, strings.TrimSuffix(name, "}\n"))
			}
		}
		if len(names) != 2 || !strings.HasPrefix(names[0], c.group) || !strings.HasPrefix(names[1], c.binding) {
			t.Fatalf("%v: %v", c, names)
		}
		for i, name := range names {
			of := []string{c.account + c.role, c.proxy}[i]
			if other := seen[name]; other != "" {
				t.Errorf("%s is of %s and of %s", name, other, of)
			}
			seen[name] = of
		}
	}
}

func TestTwoDefinitionsOfOneRoleHaveOneGroup(t *testing.T) {
	stack := file(t, "stack.yaml")
	stack = in(t, in(t, stack, "TaskRoleArn: !Ref TaskRole", "TaskRoleArn: arn:aws:iam::123456789012:role/shop"), "!Sub 'mesh/${MeshName}/virtualNode/payments'", "mesh/shop/virtualNode/payments")
	task := stack[strings.Index(stack, "  PaymentsTask:\n"):strings.Index(stack, "  Service:\n")]
	second := strings.NewReplacer("PaymentsTask:", "RefundsTask:", "virtualNode/payments", "virtualNode/refunds").Replace(task)
	r, err := ecs.Convert("x.yaml", in(t, stack, "  Service:\n", second+"  Service:\n"), options(t))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(r.Objects, "kind: NodeGroup") != 1 || strings.Count(r.Objects, "kind: Binding") != 2 {
		t.Error(r.Objects)
	}
}

// TestAPlaceIsOneOfTheTextThatWasGiven: where convert wrote the text anew there is none.
func TestAPlaceIsOneOfTheTextThatWasGiven(t *testing.T) {
	for _, name := range []string{"described.json", "oneline.json"} {
		_, err := ecs.Convert(name, in(t, file(t, name), "awsvpc", "bridge"), options(t))
		if err == nil || !strings.HasPrefix(err.Error(), name+": networkMode: is bridge") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := ecs.Convert("orders.json", in(t, file(t, "orders.json"), "awsvpc", "bridge"), options(t))
	if err == nil || !strings.HasPrefix(err.Error(), "orders.json:5:20: ") {
		t.Error(err)
	}
}

func TestTagsOfAnAnswerInYAMLAreKept(t *testing.T) {
	const text = `tags:
- key: team
  value: "orders: 7"
- key: empty
  value: ''
taskDefinition:
  family: edge
  networkMode: awsvpc
  revision: 7
  taskRoleArn: arn:aws:iam::123456789012:role/edge
  containerDefinitions:
  - name: envoy
    image: aws-appmesh-envoy
    environment:
    - name: APPMESH_RESOURCE_ARN
      value: mesh/shop/virtualGateway/edge
`
	r, err := ecs.Convert("x.yaml", text, options(t))
	if err != nil {
		t.Fatal(err)
	}
	d := definition(t, "x.yaml", r.Definition)
	tags, _ := d["tags"].([]any)
	if len(tags) != 2 || tags[0].(map[string]any)["value"] != "orders: 7" || tags[1].(map[string]any)["key"] != "empty" || d["revision"] != nil {
		t.Error(r.Definition)
	}
}

// TestADefinitionThatIsAFunctionIsNoted: whether App Mesh's Envoy is in it is not known.
func TestADefinitionThatIsAFunctionIsNoted(t *testing.T) {
	stack := file(t, "stack.yaml")
	const other = "  Other:\n    Type: AWS::ECS::TaskDefinition\n    Properties:\n      Family: other\n      ContainerDefinitions: "
	for containers, noted := range map[string]bool{"!If [A, [{Name: envoy}], []]": true, "[{Name: app, Image: app:1}, !If [A, {Name: envoy}, !Ref 'AWS::NoValue']]": true, "[{Name: app, Image: app:1}]": false} {
		r, err := ecs.Convert("x.yaml", in(t, stack, "  Service:\n", other+containers+"\n  Service:\n"), options(t))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(strings.Join(r.Notes, "\n"), "Resources.Other: its containers") != noted || !strings.Contains(r.Definition, other+containers+"\n") {
			t.Errorf("%s: %q", containers, r.Notes)
		}
	}
}

// TestEachChangeIsToldWhateverStandsOnALine: of a compact text a line has many, and had the reason of one.
func TestEachChangeIsToldWhateverStandsOnALine(t *testing.T) {
	for _, c := range cases {
		texts := map[string]string{c.file: file(t, c.file)}
		if strings.HasSuffix(c.file, ".json") {
			var b bytes.Buffer
			if err := json.Compact(&b, []byte(texts[c.file])); err != nil {
				t.Fatal(err)
			}
			texts["compact.json"] = b.String()
			texts["twolines.json"] = "{\n" + b.String()[1:]
			texts["compact.yaml"] = b.String()
		}
		for name, text := range texts {
			r := by(t, "", name, text)
			var told []ecs.Change
			for _, l := range r.Diff {
				told = append(append(told, ecs.Change{Path: l.Path, Reason: l.Reason}), l.Also...)
			}
			for _, want := range r.Changes {
				if !slices.Contains(told, want) {
					t.Errorf("%s of %s: nothing says %s: %s", name, c.file, want.Path, want.Reason)
				}
			}
		}
	}
}
