package ecstask_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"signet.example/attestation"
	"signet.example/attestation/ecstask"
	"signet.example/test/parts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = "0123456789abcdef0123456789abcdef"

// web is a task of the tests.
func web() parts.ECSTask {
	return parts.ECSTask{ARN: parts.ECSTaskARN(id), Family: "web", Revision: "7", Container: "envoy", Labels: map[string]string{"team": "shop"}, IPv4: []string{"192.0.2.3"}}
}

// told reads what the endpoint of a task says.
func told(t *testing.T, of parts.ECSTask) (ecstask.Task, error) {
	t.Helper()
	t.Setenv(ecstask.Variable, parts.ECSMetadata(t, of))
	return ecstask.Read(t.Context())
}

func TestATaskIsReadOnFargateAndOnEC2(t *testing.T) {
	for _, ec2 := range []bool{false, true} {
		of := web()
		of.EC2 = ec2
		task, err := told(t, of)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(task.Selectors().Strings(), " "); got != "ecs:cluster:shop-prod ecs:family:web ecs:revision:7 ecs:container:envoy ecs:label:team:shop" {
			t.Error(got)
		}
		if task.ARN != of.ARN || task.String() != "shop-prod/web:7" || !task.Known() {
			t.Errorf("%s, %s", task.ARN, task)
		}
		if a, err := task.Among(netip.Addr{}); err != nil || a.String() != "192.0.2.3" {
			t.Errorf("%s, %v", a, err)
		}
	}
}

func TestOutsideOfECSNobodyIsAsked(t *testing.T) {
	t.Setenv(ecstask.Variable, "")
	task, err := ecstask.Read(t.Context())
	if err != nil || task.Known() || task.Selectors() != nil || task.String() != "" {
		t.Errorf("%+v, %v", task, err)
	}
	if a, why, err := task.Address(t.Context(), "127.0.0.1:1"); err != nil || a.String() != "127.0.0.1" || why != "by which 127.0.0.1:1 is reached" {
		t.Errorf("it has the address %s, %s, %v", a, why, err)
	}
	if a, _, err := task.Address(t.Context(), "127.0.0.1"); err == nil || a.IsValid() {
		t.Errorf("without a server it has the address %s", a)
	}
}

func TestTheAddressIsThatByWhichTheServerIsReachedOrTheOnlyOne(t *testing.T) {
	a := func(list ...string) (of []netip.Addr) {
		for _, s := range list {
			of = append(of, netip.MustParseAddr(s))
		}
		return of
	}
	for name, c := range map[string]struct {
		networks      [][]netip.Addr
		reached, want string
	}{
		"one":                                {[][]netip.Addr{a("192.0.2.3")}, "198.51.100.7", "192.0.2.3"},
		"both families":                      {[][]netip.Addr{a("2001:db8::3", "192.0.2.3")}, "198.51.100.7", "192.0.2.3"},
		"both families, reached by IPv6":     {[][]netip.Addr{a("192.0.2.3", "2001:db8::3")}, "2001:db8::3", "2001:db8::3"},
		"IPv6 alone":                         {[][]netip.Addr{a("2001:db8::3")}, "198.51.100.7", "2001:db8::3"},
		"several networks, one that reaches": {[][]netip.Addr{a("192.0.2.3"), a("198.51.100.7")}, "198.51.100.7", "198.51.100.7"},
		"several networks, none":             {[][]netip.Addr{a("192.0.2.3"), a("198.51.100.7")}, "203.0.113.1", "invalid IP"},
	} {
		got, err := ecstask.Task{Networks: c.networks}.Among(netip.MustParseAddr(c.reached))
		if got.String() != c.want || (err == nil) != got.IsValid() {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

// answers are those of a task that was changed in one place.
func answers(old, with string) (container, task []byte) {
	change := func(s string) []byte { return []byte(strings.Replace(s, old, with, 1)) }
	return change(`{"Name": "envoy", "Labels": {"com.amazonaws.ecs.task-arn": "` + parts.ECSTaskARN(id) + `", "team": "shop"}, "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["192.0.2.3"]}]}`),
		change(`{"Cluster": "shop-prod", "TaskARN": "` + parts.ECSTaskARN(id) + `", "Family": "web", "Revision": "7"}`)
}

func TestWhatContradictsItselfOrIsNoTaskIsRefused(t *testing.T) {
	if _, err := ecstask.Parse(answers("", "")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, with, want string }{
		{`"TaskARN": "arn:aws:ecs`, `"TaskARN": "arn:aws:s3`, "TaskARN: "},
		{`"Cluster": "shop-prod"`, `"Cluster": "other"`, `Cluster: "other" is another one than shop-prod`},
		{`"Cluster": "shop-prod"`, `"Cluster": "arn:aws:ecs:eu-west-1:999999999999:cluster/shop-prod"`, "Cluster: it is of another account"},
		{`"Cluster": "shop-prod"`, `"Cluster": "arn:aws:ecs:us-east-1:123456789012:cluster/shop-prod"`, "Cluster: it is of another account or region"},
		{`task-arn": "` + parts.ECSTaskARN(id), `task-arn": "` + parts.ECSTaskARN(strings.Repeat("f", 32)), "of another task than the one of /task"},
		{`"Family": "web"`, `"Family": ""`, "Family: "},
		{`"Family": "web"`, `"Family": "web:label:team"`, "Family: "},
		{`"Revision": "7"`, `"Revision": "07"`, "Revision: "},
		{`"Name": "envoy"`, `"Name": "` + strings.Repeat("e", 256) + `"`, "Name: "},
		{`"192.0.2.3"`, `"192.0.2"`, `Networks: "192.0.2" is not an address`},
		{`"Labels": {`, `"Labels": [{`, "invalid character"},
		{`"Revision": "7"}`, `"Revision": "7"} {}`, "after top-level value"},
	} {
		if _, err := ecstask.Parse(answers(c.old, c.with)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.with, err, c.want)
		}
	}
}

func TestWhatNoSelectorCanNameIsLeftOut(t *testing.T) {
	for _, label := range []string{`"a:b": "c"`, `"": "c"`, `"a": "\n"`, `"` + strings.Repeat("a", 257) + `": "c"`, `"com.amazonaws.ecs.x": "c"`} {
		task, err := ecstask.Parse(answers(`"team": "shop"`, label))
		if err != nil || len(task.Labels) != 0 {
			t.Errorf("%s: %v, %v", label, task.Labels, err)
		}
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf(`"l%03d": "x"`, i))
	}
	task, err := ecstask.Parse(answers(`"team": "shop"`, strings.Join(many, ",")))
	if _, first := task.Labels["l063"]; err != nil || len(task.Labels) != 64 || !first {
		t.Errorf("%d labels, %v", len(task.Labels), err)
	}
	for _, network := range []string{`"NetworkMode": "bridge"`, `"NetworkMode": "host"`} {
		if task, err := ecstask.Parse(answers(`"NetworkMode": "awsvpc"`, network)); err != nil || len(task.Networks) != 0 {
			t.Errorf("%s: %v, %v", network, task.Networks, err)
		}
	}
	for _, address := range []string{"127.0.0.1", "169.254.172.2", "fe80::1", "224.0.0.1", "0.0.0.0", "::ffff:192.0.2.3"} {
		if task, err := ecstask.Parse(answers("192.0.2.3", address)); err != nil || len(task.Networks) != 0 {
			t.Errorf("%s: %v, %v", address, task.Networks, err)
		}
	}
}

// What a task is said to be is what an Entry can name, whatever the endpoint answers.
func FuzzParse(f *testing.F) {
	for old, with := range map[string]string{"": "", `"team": "shop"`: `"a": "b:c"`, `"shop-prod"`: `"arn:aws:ecs:eu-west-1:123456789012:cluster/shop-prod"`} {
		container, of := answers(old, with)
		f.Add(container, of)
	}
	f.Add([]byte("null"), []byte("[]"))
	f.Fuzz(func(t *testing.T, container, of []byte) {
		task, err := ecstask.Parse(container, of)
		if err != nil {
			return
		}
		for _, s := range task.Selectors() {
			if !attestation.ECSForms.Has(s) {
				t.Errorf("%s is no selector", s)
			}
		}
		if a, err := task.Among(netip.Addr{}); err == nil && len(task.Networks) > 0 && !a.IsGlobalUnicast() {
			t.Errorf("its address is %s", a)
		}
	})
}
