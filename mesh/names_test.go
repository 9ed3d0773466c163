package mesh_test

import (
	"fmt"
	"strings"
	"testing"

	"signet.example/mesh"
)

func TestAnAppMeshNameIsTheWebhooksWithANamespaceAndThePlainOneWithout(t *testing.T) {
	for kind, want := range map[string]string{"Mesh": "a", "VirtualNode": "a_ns", "VirtualRouter": "a_ns", "VirtualService": "a.ns"} {
		for metadata, name := range map[string]string{"{name: a, namespace: ns}": want, "{name: a}": "a"} {
			r := parseOne(t, "apiVersion: appmesh.k8s.aws/v1beta2\nkind: "+kind+"\nmetadata: "+metadata+"\n")
			if r.Name != name {
				t.Errorf("%s %s: %q, want %q", kind, metadata, r.Name, name)
			}
			named := parseOne(t, "apiVersion: appmesh.k8s.aws/v1beta2\nkind: "+kind+"\nmetadata: "+metadata+"\nspec: {awsName: b}\n")
			if named.Name != "b" {
				t.Errorf("%s %s: awsName is %q", kind, metadata, named.Name)
			}
		}
	}
}

func TestAPathThatNoRequestCanHaveIsRefused(t *testing.T) {
	places := map[string]string{
		"match.prefix":     object("VirtualRouter", "r") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}}], routes: [{name: x, httpRoute: {match: {prefix: %q}, action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}}}]}\n",
		"match.path.exact": object("VirtualRouter", "r") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}}], routes: [{name: x, httpRoute: {match: {path: {exact: %q}}, action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}}}]}\n",
		"healthCheck.path": object("VirtualNode", "n") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}, healthCheck: {protocol: http, path: %q, healthyThreshold: 2, unhealthyThreshold: 2, timeoutMillis: 2000, intervalMillis: 5000}}]}\n",
	}
	for field, manifest := range places {
		for path, refused := range map[string]bool{"/a//b": true, "/a/./b": true, "/a/../b": true, "/a?b": true, "/a#b": true, "/a b": true, "/a/b.c": false} {
			docs, err := mesh.Split("m.yaml", fmt.Appendf(nil, manifest, path))
			if err != nil {
				t.Fatal(err)
			}
			_, err = mesh.Parse(docs[0])
			if (err != nil) != refused || refused && !strings.Contains(err.Error(), field) {
				t.Errorf("%s: %q: %v", field, path, err)
			}
		}
	}
}
