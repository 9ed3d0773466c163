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

// Std is the duration as Go's.
func (d Duration) Std() time.Duration {
	if d.Unit == "ms" {
		return time.Duration(d.Value) * time.Millisecond
	}
	return time.Duration(d.Value) * time.Second
}
