package dialect

import (
	"reflect"
	"slices"
	"strings"

	"signet.example/mesh"
)

// Spelling is how a form writes what the API's model has: the members' names, and
// whether scalars are taken for each other.
type Spelling struct {
	// Member is the form's word for a member of the model.
	Member func(string) string
	// Loose: names are read in any case, and "80" as 80, as CloudFormation does.
	Loose bool
	// Blocks: a structure stands as a list of one, a list of structures under the name of
	// one, and what is not given as an empty list or as zero, as in Terraform's state.
	Blocks bool
}

// AWS is the API's own spelling.
var AWS = Spelling{Member: func(name string) string { return name }}

// CloudFormation is that of templates.
var CloudFormation = Spelling{Member: upperCamel, Loose: true}

// Terraform is that of its AWS provider.
var Terraform = Spelling{Member: snake, Blocks: true}

// blocks are the members that Terraform has under the name of one of their items.
var blocks = map[string]string{
	"backends": "backend", "headers": "header", "listeners": "listener", "queryParameters": "query_parameter",
	"weightedTargets": "weighted_target",
}

func snake(name string) string {
	if word := blocks[name]; word != "" {
		return word
	}
	var b strings.Builder
	for _, r := range name {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// capitals are the members that CloudFormation writes in other capitals than their first.
var capitals = map[string]string{
	"acm": "ACM", "awsCloudMap": "AWSCloudMap", "dns": "DNS", "grpc": "GRPC", "http": "HTTP", "http2": "HTTP2",
	"sds": "SDS", "tcp": "TCP", "tls": "TLS",
}

func upperCamel(name string) string {
	if word := capitals[name]; word != "" || name == "" {
		return word
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// Path is the form's word for each step of a path in the CRD's words.
func (s Spelling) Path(path string) string {
	steps := strings.Split(path, ".")
	for i, step := range steps {
		name, index, listed := strings.Cut(step, "[")
		if steps[i] = s.Member(apiName(name)); listed {
			steps[i] += "[" + index
		}
	}
	return strings.Join(steps, ".")
}

// apart are the members that CRDs and the API name differently: by mesh's type and the
// API's name, the CRD's. A reference is a name in the API.
var apart = map[string]struct {
	crd string
	to  mesh.Kind
}{
	"GatewayRouteVirtualService.virtualServiceName": {"virtualServiceRef", mesh.KindVirtualService},
	"MeshSpec.serviceDiscovery":                     {"meshServiceDiscovery", ""},
	"TLSACMCertificate.certificateArn":              {"certificateARN", ""},
	"TLSACMTrust.certificateAuthorityArns":          {"certificateAuthorityARNs", ""},
	"VirtualNodeProvider.virtualNodeName":           {"virtualNodeRef", mesh.KindVirtualNode},
	"VirtualRouterProvider.virtualRouterName":       {"virtualRouterRef", mesh.KindVirtualRouter},
	"VirtualServiceBackend.virtualServiceName":      {"virtualServiceRef", mesh.KindVirtualService},
	"WeightedTargetSpec.virtualNode":                {"virtualNodeRef", mesh.KindVirtualNode},
}

// apiName is the API's word for the CRD's, of what is no reference.
func apiName(crd string) string {
	for key, of := range apart {
		if of.crd == crd && of.to == "" {
			_, name, _ := strings.Cut(key, ".")
			return name
		}
	}
	return crd
}

// onlyCRD are the members that the API does not have, by mesh's type.
var onlyCRD = map[string][]string{
	"GatewayRouteSpec":           {"awsName", "virtualGatewayRef", "meshRef"},
	"GatewayRouteVirtualService": {"virtualServiceARN"},
	"MeshSpec":                   {"awsName", "namespaceSelector", "meshOwner"},
	"RouteSpec":                  {"name"},
	"VirtualGatewaySpec":         {"awsName", "namespaceSelector", "podSelector", "gatewayRouteSelector", "meshRef"},
	"VirtualNodeProvider":        {"virtualNodeARN"},
	"VirtualNodeSpec":            {"awsName", "podSelector", "backendGroups", "meshRef"},
	"VirtualRouterProvider":      {"virtualRouterARN"},
	"VirtualRouterSpec":          {"awsName", "routes", "meshRef"},
	"VirtualServiceBackend":      {"virtualServiceARN"},
	"VirtualServiceSpec":         {"awsName", "meshRef"},
	"WeightedTargetSpec":         {"virtualNodeARN"},
}

// needed are the members that the API requires and CRDs do not.
var needed = map[string]bool{"GatewayHealthCheckPolicy.healthyThreshold": true, "VirtualGatewaySpec.listeners": true}

// member is one member of a structure of the API, and the field that has it here.
type member struct {
	api, crd string
	to       mesh.Kind // of a reference
	needed   bool      // where no check tag says so
	required bool      // needed, or by its check tag
	index    int
	typ      reflect.Type
}

// membersOf are the API's members of mesh's type.
func membersOf(t reflect.Type) []member {
	api := map[string]string{} // by the CRD's name
	for key, of := range apart {
		if typ, name, _ := strings.Cut(key, "."); typ == t.Name() {
			api[of.crd] = name
		}
	}
	var list []member
	for i := range t.NumField() {
		f := t.Field(i)
		crd, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		m := member{api: crd, crd: crd, index: i, typ: f.Type}
		if name := api[crd]; name != "" {
			m.api = name
			m.to = apart[t.Name()+"."+name].to
		}
		m.needed = m.to != "" || needed[t.Name()+"."+m.api]
		m.required = m.needed || slices.Contains(strings.Fields(f.Tag.Get("check")), "required")
		if !slices.Contains(onlyCRD[t.Name()], crd) {
			list = append(list, m)
		}
	}
	return list
}
