package xds_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/prototext"

	"signet.example/ads"
	"signet.example/mesh/graphtest"
	"signet.example/test/invariants"
	xdstest "signet.example/test/xds"
)

// Envoy lets all headers with underscores through where some pass, so that the agent must
// refuse the others: one that does not is sent listeners that refuse all.
func TestAnAgentThatDoesNotRefuseHeadersByNameIsSentNoneThatPass(t *testing.T) {
	const file, passing = "testdata/router/mesh.yaml", "\n---\napiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: shop}\nspec: {headersWithUnderscores: [b_c, A_b]}\n"
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		what          string
		named, agents bool
		passes        bool
	}{
		{"some are named", true, true, true},
		{"none is", false, true, false},
		{"the agent is of the release before", true, false, false},
	} {
		c := xdstest.Load(t, "testdata/router")
		if row.named {
			c.Input.Graph = graphtest.Graph(t, file, append(slices.Clone(content), passing...))
		}
		c.Shape.Underscores = row.agents
		set := build(t, c)
		for _, r := range set.Type(ads.ListenerType) {
			text := strings.ReplaceAll(prototext.Format(decodeAs[*listenerv3.Listener](t, r)), " ", "")
			if refuses := strings.Contains(text, "headers_with_underscores_action:REJECT_REQUEST"); refuses == row.passes {
				t.Errorf("%s: %s refuses all: %t", row.what, r.Name, refuses)
			}
			told := strings.Contains(text, `key:"x-signet-underscores"`+"\n"+`value:"a_b,b_c"`)
			if strings.HasPrefix(r.Name, "lds_ingress") && told != row.passes {
				t.Errorf("%s: the agent is told by %s: %t", row.what, r.Name, told)
			}
		}
		for _, says := range invariants.CheckSet(set) {
			t.Errorf("%s: %s", row.what, says)
		}
	}
}
