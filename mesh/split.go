package mesh

import (
	"regexp"
	"strings"

	"signet.example/internal/manifest"
)

// manifests are those of App Mesh's kinds and of Signet's own.
var manifests = &manifest.Format{Versions: []string{GroupVersion, SignetGroupVersion}, Reject: otherForm}

// Split takes a YAML stream (or one JSON text) apart into its documents, none
// of them understood yet.
func Split(file string, content []byte) ([]*manifest.Document, error) {
	return manifests.Split(file, content)
}

// SplitTemplate is Split of a template whose placeholders may have no value; unfilled is
// that of [manifest.Format].
func SplitTemplate(file string, content []byte, unfilled func(string) (string, []string)) ([]*manifest.Document, error) {
	format := *manifests
	format.Unfilled = unfilled
	return format.Split(file, content)
}

var (
	anAPIVersion   = regexp.MustCompile(`(?m)^[\s{]*"?apiVersion"?\s*:`)
	cloudFormation = regexp.MustCompile(`(?m)^[\s{]*"?AWSTemplateFormatVersion"?\s*:|\bAWS::AppMesh::`)
	terraform      = regexp.MustCompile(`(?m)^\s*resource\s+"aws_appmesh_`)
	awsJSON        = regexp.MustCompile(`(?m)^[\s{]*"(meshName|virtualNodeName|virtualRouterName|virtualServiceName|virtualGatewayName|routeName)"\s*:`)
	// Where the command's flags have the names, its file is only a spec.
	inBraces = regexp.MustCompile(`(?m)^\{\s*"spec"\s*:`)
)

// otherForm is which of App Mesh's other inputs a text is, "" for none.
func otherForm(text string) string {
	form := ""
	switch {
	case anAPIVersion.MatchString(text):
	case cloudFormation.MatchString(text):
		form = "a CloudFormation template"
	case terraform.MatchString(text):
		form = "Terraform's configuration"
	case awsJSON.MatchString(text), inBraces.MatchString(text) && !strings.Contains(text, `"apiVersion"`):
		form = "the JSON of `aws appmesh`"
	}
	switch form {
	case "":
		return ""
	case "Terraform's configuration":
		return "is " + form + ", which is not read: signet import appmesh reads its state, as terraform show -json writes it (docs/APPMESH.md)"
	}
	return "is " + form + ", which is not a manifest: signet import appmesh reads it (docs/APPMESH.md)"
}
