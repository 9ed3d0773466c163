package importer

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/dialect"
)

// Form is how a file is written.
type Form string

// The forms that are read.
const (
	CRD Form = "crd" // manifests of appmesh.k8s.aws/v1beta2
	AWS Form = "aws" // JSON of `aws appmesh`, what it is given and what it answers
	// CloudFormation is a template, in YAML or JSON.
	CloudFormation Form = "cfn"
	// Terraform is a state: its file, or what terraform show -json writes.
	Terraform Form = "terraform"
	// Envoy is the answer of /config_dump of an Envoy's admin interface.
	Envoy Form = "envoy"
)

// Forms lists the forms that are read.
func Forms() []string {
	return []string{string(CRD), string(AWS), string(CloudFormation), string(Terraform), string(Envoy)}
}

var (
	anAPIVersion   = regexp.MustCompile(`(?m)^[\s{]*"?apiVersion"?\s*:`)
	cloudFormation = regexp.MustCompile(`(?m)^[\s{]*"?AWSTemplateFormatVersion"?\s*:|\bAWS::[A-Za-z]+::[A-Za-z]+\b`)
	hcl            = regexp.MustCompile(`(?m)^\s*resource\s+"aws_`)
	// Whatever stands in a state, its own members come first.
	state      = regexp.MustCompile(`^\s*\{[^{[]*"terraform_version"\s*:`)
	configDump = regexp.MustCompile(`type\.googleapis\.com/envoy\.admin\.v3\.`)
	awsNames   = regexp.MustCompile(`(?m)^[\s{[,]*"?(meshName|virtualNodeName|virtualRouterName|virtualServiceName|virtualGatewayName|routeName|gatewayRouteName)"?\s*:`)
	awsInput   = regexp.MustCompile(`^[\s[]*\{\s*"(spec|mesh|virtualNode|virtualRouter|virtualService|virtualGateway|route|gatewayRoute)"\s*:\s*\{`)
)

// formOf returns the form of a file by its content; why is set where there is none that is
// read.
func formOf(f dialect.File) (form Form, why string) {
	text := string(f.Content)
	switch {
	case state.MatchString(text):
		return Terraform, ""
	case anAPIVersion.MatchString(text):
		return CRD, ""
	case configDump.MatchString(text):
		return Envoy, ""
	case cloudFormation.MatchString(text):
		return CloudFormation, ""
	case hcl.MatchString(text):
		return "", "Terraform's configuration is not read: give its state, as terraform show -json writes it"
	case awsNames.MatchString(text), awsInput.MatchString(text):
		return AWS, ""
	case strings.TrimSpace(text) == "":
		return "", "is empty"
	}
	if _, wrong := (manifest.Form{}).Read(f.Name, f.Content); len(wrong) > 0 {
		return "", fmt.Sprintf("has a mistake that keeps its form from being seen: line %d, column %d: %s", wrong[0].Line, wrong[0].Column, wrong[0].Msg)
	}
	return "", fmt.Sprintf("has nothing of App Mesh in a form that is read (%s); --dialect says which it is; of aws appmesh give what describe-… answers, not list-…; of Terraform a state, not a plan", strings.Join(Forms(), ", "))
}

// KindOf is App Mesh's kind of a name in any case; Route is that of a route by itself.
func KindOf(name string) (mesh.Kind, error) {
	names := []string{string(dialect.KindRoute)}
	for _, k := range mesh.Kinds() {
		names = append(names, string(k.Kind))
	}
	i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	if i < 0 {
		return "", fmt.Errorf("%q is not one of %s", name, strings.Join(names, ", "))
	}
	return mesh.Kind(names[i]), nil
}
