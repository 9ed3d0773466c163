package mesh

import "time"

// Reference names an object of this group, as Kubernetes does.
type Reference struct {
	// Namespace defaults to the referencing object's.
	Namespace string `yaml:"namespace,omitempty" json:"namespace,omitempty"`
	Name      string `yaml:"name" json:"name" check:"required len=1..253"`
}

// MeshRef names the mesh that an object belongs to. In Kubernetes a webhook fills
// it in; written by hand it chooses where there are several meshes.
type MeshRef struct {
	Name string `yaml:"name" json:"name" check:"required len=1..255"`
	// UID is carried, not compared: there is no Kubernetes API server here that
	// gave it out. Deviates: the CRD requires it.
	UID string `yaml:"uid,omitempty" json:"uid,omitempty"`
}

// LabelSelector is Kubernetes' (meta/v1).
type LabelSelector struct {
	MatchLabels      map[string]string          `yaml:"matchLabels,omitempty" json:"matchLabels,omitempty"`
	MatchExpressions []LabelSelectorRequirement `yaml:"matchExpressions,omitempty" json:"matchExpressions,omitempty"`
}

// LabelSelectorRequirement is Kubernetes' (meta/v1).
type LabelSelectorRequirement struct {
	Key      string   `yaml:"key" json:"key" check:"required len=1.."`
	Operator string   `yaml:"operator" json:"operator" check:"required enum=In,NotIn,Exists,DoesNotExist"`
	Values   []string `yaml:"values,omitempty" json:"values,omitempty"`
}

// Duration is App Mesh's pair of unit and value. The upper bound is ours: a
// hundred years fit into every proxy's and Go's idea of a duration.
type Duration struct {
	Unit  string `yaml:"unit" json:"unit" check:"required enum=s,ms"`
	Value int64  `yaml:"value" json:"value" check:"required min=0 max=3153600000"`
}

// Std is the duration as Go's.
func (d Duration) Std() time.Duration {
	if d.Unit == "ms" {
		return time.Duration(d.Value) * time.Millisecond
	}
	return time.Duration(d.Value) * time.Second
}

// PortMapping is one port that a listener accepts, and what is spoken there.
type PortMapping struct {
	Port     uint32 `yaml:"port" json:"port" check:"required min=1 max=65535"`
	Protocol string `yaml:"protocol" json:"protocol" check:"required enum=grpc,http,http2,tcp offer=http"`
}
