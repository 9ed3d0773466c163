package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/test/parts"
)

func TestModelIsWhatTheGeneratorWrites(t *testing.T) {
	want, err := generate(parts.Shared(t, "appmesh", "model.json"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("..", "model.gen.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Error("mesh/model.gen.go is not what mesh/gen writes: go run ./mesh/gen")
	}
}

func TestTheTableGivesAReasonForWhatIsStricter(t *testing.T) {
	for _, typ := range types {
		for name, f := range typ.fields {
			if f.words != "" && f.why == "" {
				t.Errorf("%s.%s is %q without a reason", typ.name, name, f.words)
			}
		}
	}
}

// otherwise is what the types by hand have on purpose in another way than the model, by
// the model's name of the field: where the CRD calls it something else, that; and the
// words of the model that do not hold.
var otherwise = map[string]struct{ name, without string }{
	// References, which name an object or its ARN.
	"WeightedTarget.virtualNode":                                          {name: "virtualNodeRef"},
	"VirtualServiceBackend.virtualServiceName":                            {name: "virtualServiceRef"},
	"GatewayRouteVirtualService.virtualServiceName":                       {name: "virtualServiceRef"},
	"VirtualNodeServiceProvider.virtualNodeName":                          {name: "virtualNodeRef"},
	"VirtualRouterServiceProvider.virtualRouterName":                      {name: "virtualRouterRef"},
	"MeshSpec.serviceDiscovery":                                           {name: "meshServiceDiscovery"},
	"ListenerTlsAcmCertificate.certificateArn":                            {name: "certificateARN"},
	"VirtualGatewayListenerTlsAcmCertificate.certificateArn":              {name: "certificateARN"},
	"TlsValidationContextAcmTrust.certificateAuthorityArns":               {name: "certificateAuthorityARNs"},
	"VirtualGatewayTlsValidationContextAcmTrust.certificateAuthorityArns": {name: "certificateAuthorityARNs"},
	// The CRD does not require it; what comes from the API has it all the same.
	"VirtualGatewayHealthCheckPolicy.healthyThreshold": {without: "required"},
	"VirtualGatewaySpec.listeners":                     {without: "required"},
	// One member of a union of one is required.
	"Backend.virtualService": {without: "one"},
}

// handTypes are the types that hand names.
var handTypes = []any{
	mesh.MeshSpec{},
	mesh.VirtualNodeSpec{},
	mesh.VirtualServiceSpec{},
	mesh.VirtualRouterSpec{},
	mesh.RouteSpec{},
	mesh.VirtualGatewaySpec{},
	mesh.GatewayRouteSpec{},
	mesh.Backend{},
	mesh.VirtualServiceBackend{},
	mesh.VirtualNodeProvider{},
	mesh.VirtualRouterProvider{},
	mesh.WeightedTargetSpec{},
	mesh.GatewayRouteVirtualService{},
	mesh.TLSACMCertificate{},
	mesh.TLSACMTrust{},
	mesh.GatewayHealthCheckPolicy{},
	mesh.GatewayListenerTLS{},
	mesh.TLSValidation{},
	mesh.TLSTrust{},
}

// Structure by structure from the seven specs down: each has a type, by hand or written,
// and each type by hand has every member with every constraint.
func TestTypesByHandHaveEveryMemberAndConstraintOfTheModel(t *testing.T) {
	m, err := readModel(parts.Shared(t, "appmesh", "model.json"))
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]reflect.Type{}
	for _, v := range handTypes {
		byName[reflect.TypeOf(v).Name()] = reflect.TypeOf(v)
	}
	written := map[string]bool{}
	for _, typ := range types {
		for _, of := range typ.of {
			written[of] = true
		}
	}
	reachable := m.below("MeshSpec", "VirtualNodeSpec", "VirtualServiceSpec", "VirtualRouterSpec", "RouteSpec", "VirtualGatewaySpec", "GatewayRouteSpec")
	for _, of := range reachable {
		typ := byName[hand[of]]
		switch {
		case hand[of] != "" && written[of]:
			t.Errorf("%s is written and by hand", of)
		case hand[of] != "" && typ == nil:
			t.Errorf("%s: there is no type %s by hand", of, hand[of])
		case typ != nil:
			m.compare(t, of, typ)
		case !written[of]:
			t.Errorf("%s has no type", of)
		}
	}
	for of := range hand {
		if !slices.Contains(reachable, of) {
			t.Errorf("%s is in no spec", of)
		}
	}
	if len(reachable) < 119 {
		t.Errorf("only %d structures were found", len(reachable))
	}
}

// below are the structures of specs.
func (m model) below(specs ...string) []string {
	found := map[string]bool{}
	var visit func(of string)
	visit = func(of string) {
		s := m[of]
		if s.Type == "list" {
			visit(s.Member.Shape)
		}
		if s.Type != "structure" || found[of] {
			return
		}
		found[of] = true
		for _, mem := range s.Members {
			visit(mem.Shape)
		}
	}
	for _, spec := range specs {
		visit(spec)
	}
	return slices.Sorted(maps.Keys(found))
}

func (m model) compare(t *testing.T, of string, typ reflect.Type) {
	s := m[of]
	for name, mem := range s.Members {
		field := of + "." + name
		other := otherwise[field]
		crd := name
		if other.name != "" {
			crd = other.name
		}
		f, ok := byTag(typ, crd)
		if !ok {
			t.Errorf("%s: %s has no field %s", field, typ.Name(), crd)
			continue
		}
		words := m.words(s, name, "")
		if strings.HasSuffix(crd, "Ref") {
			words = "" // the object's name, which a Reference bounds
			if f.Type != reflect.TypeFor[*mesh.Reference]() {
				t.Errorf("%s: is a %s", field, f.Type)
			}
		}
		ours := strings.Fields(f.Tag.Get("check"))
		for word := range strings.FieldsSeq(words) {
			if word != other.without && !slices.ContainsFunc(ours, func(w string) bool { return keeps(w, word) }) {
				t.Errorf("%s: %q is not kept by %q", field, word, f.Tag.Get("check"))
			}
		}
		m.sameKind(t, field, mem.Shape, f.Type)
	}
}

// keeps reports whether a word of ours is that of the model.
func keeps(ours, model string) bool {
	if strings.HasPrefix(ours, "enum=") && strings.HasPrefix(model, "enum=") {
		sorted := func(s string) []string { return slices.Sorted(strings.SplitSeq(s[len("enum="):], ",")) }
		return slices.Equal(sorted(ours), sorted(model))
	}
	return ours == model
}

// sameKind looks at the types of what is no structure: those are compared by themselves.
func (m model) sameKind(t *testing.T, field, of string, typ reflect.Type) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want, err := m.goType(of, true, map[string]string{})
	switch {
	case err != nil: // a structure, or a list of them
	case typ.Name() == "Reference":
	case strings.TrimPrefix(want, "*") != fmt.Sprint(typ):
		t.Errorf("%s: is a %s here, a %s in the model", field, typ, want)
	}
}

func byTag(typ reflect.Type, name string) (reflect.StructField, bool) {
	for f := range typ.Fields() {
		if tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); tag == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}
