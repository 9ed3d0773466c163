package samples

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
	"signet.example/mesh/placeholder"
	"signet.example/test/parts"
)

// File is a walkthrough as it is, whatever its form.
func File(t testing.TB, name string) dialect.File {
	t.Helper()
	content, err := os.ReadFile(parts.Shared(t, "appmesh", "samples", name))
	if err != nil {
		t.Fatal(err)
	}
	return dialect.File{Name: name, Content: content}
}

// Of are the names of the walkthroughs in a form.
func Of(t testing.TB, form importer.Form) []string {
	t.Helper()
	entries, err := os.ReadDir(parts.Shared(t, "appmesh", "samples"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() == "index.md" {
			continue
		}
		if importer.Read([]dialect.File{File(t, e.Name())}, importer.Options{}).Files[0].Form == form {
			names = append(names, e.Name())
		}
	}
	return names
}

// aside is what the commands of the walkthroughs said beside their files.
var aside = map[string]dialect.Options{
	"howto-ingress-gateway__mesh_colorgateway-vg.json":                            {Name: "colorgateway"},
	"howto-ingress-gateway__mesh_colorteller-white-vn-tls.json":                   {Name: "colorteller-white"},
	"howto-ingress-gateway__mesh_mesh.json":                                       {Name: "shop", Kind: mesh.KindMesh},
	"howto-mutual-tls-file-provided__mesh_updates_colorteller-vn-strict-tls.json": {Name: "colorteller"},
}

// around is what stood in App Mesh already when a file was given.
func around(name string) (list []dialect.File) {
	if text := stood[name]; text != "" {
		list = append(list, dialect.File{Name: "around.json", Content: []byte(text)})
	}
	return list
}

var stood = map[string]string{
	"howto-grpc__mesh_route-retries.json":      `{"virtualRouterName": "virtual-router", "spec": {"listeners": [{"portMapping": {"port": 8080, "protocol": "grpc"}}]}}`,
	"howto-http2__mesh_route-red-retries.json": `{"virtualRouterName": "virtual-router", "spec": {"listeners": [{"portMapping": {"port": 8080, "protocol": "http2"}}]}}`,
}

// Import brings a walkthrough in, with its placeholders and parameters filled.
func Import(t testing.TB, form importer.Form, name string) *importer.Report {
	t.Helper()
	return importer.Read(append([]dialect.File{File(t, name)}, around(name)...), options(t, form, name))
}

// Whole is Import with the objects of other files that a walkthrough refers to.
func Whole(t testing.TB, form importer.Form, name string) *importer.Report {
	t.Helper()
	return importer.Read(Input(t, form, name))
}

// Input is what Whole reads.
func Input(t testing.TB, form importer.Form, name string) ([]dialect.File, importer.Options) {
	t.Helper()
	files := []dialect.File{File(t, name)}
	for part, text := range refersTo {
		if strings.HasPrefix(name, part) {
			files = append(files, dialect.File{Name: "others.yaml", Content: []byte(text)})
		}
	}
	return append(files, around(name)...), options(t, form, name)
}

// Graph joins what came in; nil where nothing of it can stand alone.
func Graph(t testing.TB, name string, manifests []importer.Manifest) *mesh.Graph {
	t.Helper()
	var rs []*mesh.Resource
	for _, m := range manifests {
		docs, err := mesh.Split(name, m.Content)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			parsed, err := mesh.Parse(d)
			if err != nil {
				t.Fatal(err)
			}
			parsed.Mesh = m.Object.Mesh
			rs = append(rs, parsed)
		}
	}
	if len(rs) == 0 {
		return nil
	}
	g, err := mesh.NewGraph(rs)
	if err != nil {
		lines := strings.Split(err.Error(), "\n")
		t.Log(name, fmt.Sprint(len(lines), " problems, the first: "), lines[0])
		return nil
	}
	return g
}

// refersTo is what walkthroughs refer to and have in files of their own, by the beginnings
// of their names.
var refersTo = map[string]string{
	"blog-eks-canary-deployments-pipeline__microservices_yelb":  yelb("http"),
	"blog-eks-canary-deployments-pipeline__microservices_redis": yelb("tcp"),
	"blog-ecs-canary-deployments-pipeline__":                    object("Mesh", "yelb", "{}"),
	"howto-k8s-cross-cluster__v1beta2_cluster1":                 object("VirtualService", "colorapp, namespace: app", "{}"),
	"howto-k8s-http-ingress-v2__": object("Mesh", "walk", "{}") + object("VirtualNode", "color, namespace: app", listening("http")) +
		object("VirtualGateway", "ingress-gw, namespace: app", listening("http")) +
		colors("yellow", "white", "green", "paths"),
	"fargate__":                           object("Mesh", "color", "{}"),
	"howto-grpc__mesh_route-retries":      object("Mesh", "m", "{}") + object("VirtualNode", "color_server", listening("grpc")),
	"howto-http2__mesh_route-red-retries": object("Mesh", "m", "{}") + object("VirtualNode", "color_server-red", listening("http2")),
	"howto-ingress-gateway__mesh_color":   object("Mesh", "m", "{}"),
	"howto-mutual-tls-file-provided__":    object("Mesh", "m", "{}"),
	"howto-outlier-detection__mesh_color": object("Mesh", "m", "{}"),
	"howto-outlier-detection__mesh_front": object("Mesh", "m", "{}") + object("VirtualService", "color.shop.local", "{}"),
}

func object(kind, meta, spec string) string {
	return "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: " + kind + "\nmetadata: {name: " + meta + "}\nspec: " + spec + "\n"
}

func listening(protocol string) string {
	return "{listeners: [{portMapping: {port: 8080, protocol: " + protocol + "}}]}"
}

// yelb is what is there when another version of it comes.
func yelb(protocol string) string {
	return object("Mesh", "yelb", "{}") + object("VirtualNode", "yelb-v1, namespace: yelb", listening(protocol)) +
		object("VirtualNode", "yelb, namespace: yelb", listening(protocol)) + object("VirtualService", "yelb-appserver, namespace: yelb", "{}")
}

func colors(names ...string) string {
	text := ""
	for _, name := range names {
		text += object("VirtualService", "color-"+name+", namespace: app", "{provider: {virtualNode: {virtualNodeRef: {name: color}}}}")
	}
	return text
}

// options are what is said beside a walkthrough's files.
func options(t testing.TB, form importer.Form, name string) importer.Options {
	t.Helper()
	o := importer.Options{Values: vars(t, form), Other: aside[name]}
	if form == importer.CloudFormation {
		o.Other.Region, o.Other.AccountID, o.Other.StackName = "eu-west-1", "111122223333", "stack"
		o.Other.Exports = map[string]string{
			"yelb:Mesh": "yelb", "RootCA": "arn:aws:acm-pca:eu-west-1:111122223333:certificate-authority/r",
			"AppMeshCert": "arn:aws:acm:eu-west-1:111122223333:certificate/c", "EXTLB": "ext.example",
		}
	}
	return o
}

// vars are what the walkthroughs of a form leave open.
func vars(t testing.TB, form importer.Form) map[string]string {
	t.Helper()
	file := filepath.Join(parts.Root(), "mesh", "importer", "testdata", string(form)+".vars")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	values, err := placeholder.ParseVars(file, content)
	if err != nil {
		t.Fatal(err)
	}
	return values
}
