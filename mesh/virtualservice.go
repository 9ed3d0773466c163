package mesh

import "signet.example/proxy"

// VirtualServiceSpec is the spec of kind VirtualService.
type VirtualServiceSpec struct {
	// AWSName defaults to name.namespace (AM-names). It is the name that
	// callers use as host.
	AWSName string `yaml:"awsName,omitempty" json:"awsName,omitempty" check:"len=1..253 pattern=host"`
	// Provider may be absent: the service then answers nothing.
	Provider *VirtualServiceProvider `yaml:"provider,omitempty" json:"provider,omitempty"`
	MeshRef  *MeshRef                `yaml:"meshRef,omitempty" json:"meshRef,omitempty"`
}

// VirtualNodeProvider names a node by reference or by ARN.
type VirtualNodeProvider struct {
	VirtualNodeRef *Reference `yaml:"virtualNodeRef,omitempty" json:"virtualNodeRef,omitempty" check:"one"`
	VirtualNodeARN string     `yaml:"virtualNodeARN,omitempty" json:"virtualNodeARN,omitempty" check:"one len=1.."`
}

// VirtualRouterProvider names a router by reference or by ARN.
type VirtualRouterProvider struct {
	VirtualRouterRef *Reference `yaml:"virtualRouterRef,omitempty" json:"virtualRouterRef,omitempty" check:"one"`
	VirtualRouterARN string     `yaml:"virtualRouterARN,omitempty" json:"virtualRouterARN,omitempty" check:"one len=1.."`
}

func (s *VirtualServiceSpec) names() (*string, **MeshRef) { return &s.AWSName, &s.MeshRef }

// sameToOthers: nodes and gateway routes look at its name alone.
func (s *VirtualServiceSpec) sameToOthers(any) bool { return true }

func (*VirtualServiceSpec) lacks(*lacking) {}

func (s *VirtualServiceSpec) check(ru *ruler) {
	if s.Provider == nil {
		return
	}
	if n := s.Provider.VirtualNode; n != nil {
		ru.arn("spec.provider.virtualNode.virtualNodeARN", n.VirtualNodeARN, proxy.VirtualNode)
	}
	if n := s.Provider.VirtualRouter; n != nil {
		ru.arn("spec.provider.virtualRouter.virtualRouterARN", n.VirtualRouterARN, arnVirtualRouter)
	}
}
