package policy

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/mesh"
)

type Tree struct {
	URL, Commit string
	Modules     []Module
}
type TestReport struct {
	Passed, Failed int
	Failures       []string
	Warnings       []string
}
type Compiled struct{ rev Revision }

func Fetch(ctx context.Context, src identity.PolicySource, dir string) (Tree, error) {
	panic("not yet")
}
func Compile(r Revision) (*Compiled, error)                   { panic("not yet") }
func (c *Compiled) Revision() Revision                        { return c.rev }
func Test(ctx context.Context, tree Tree) (TestReport, error) { panic("not yet") }
func (c *Compiled) Evaluate(ctx context.Context, in Input) (Decision, error) {
	panic("not yet")
}
func HealthExemptions(g *mesh.Graph, td spiffeid.TrustDomain) []Exemption { panic("not yet") }
