package model_test

import (
	"strings"
	"testing"

	"signet.example/server/model/modeltest"
)

func TestABindingOfANodeThatIsNotThereAsksForWhatWasMeant(t *testing.T) {
	node := func(name, namespace string) string {
		return strings.Replace(modeltest.OfMesh("VirtualNode", name, ""), "name: "+name, "name: "+name+", namespace: "+namespace, 1)
	}
	m := modeltest.Of(t, modeltest.Mesh+node("front", "ns1")+node("back", "ns1")+modeltest.Own("NodeGroup", "hosts", ""))
	binding := func(group, node string) string {
		return modeltest.Own("Binding", "b", `group: `+group+`, mesh: m, virtualNode: `+node+`, selectors: ["signet:proxy:p"]`)
	}
	for what, row := range map[string]struct{ manifest, want string }{
		"without the namespace": {binding("hosts", "front"), "grants VirtualNode m/front, which does not exist; with a namespace its name is name_namespace, or its awsName: did you mean front_ns1?"},
		"a slip":                {binding("hosts", "frnt_ns1"), "which does not exist; did you mean front_ns1?"},
		"a slip in the group":   {binding("host", "front_ns1"), "NodeGroup host, which does not exist; did you mean hosts?"},
		"nothing like it":       {binding("hosts", "other"), "VirtualNode m/other, which does not exist"},
	} {
		_, err := m.With(modeltest.Objects(t, m, row.manifest))
		if err == nil || !strings.HasSuffix(err.Error(), row.want) {
			t.Errorf("%s: got %v\nwant …%s", what, err, row.want)
		}
	}
}
