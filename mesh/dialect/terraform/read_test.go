package terraform_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/dialect/terraform"
)

func read(content string) *dialect.Found {
	d := dialect.NewDrafts(dialect.Options{})
	terraform.Read(d, dialect.File{Name: "f.tfstate", Content: []byte(content)})
	return d.Found()
}

func told(f *dialect.Found) []string {
	var list []string
	for _, x := range f.Findings {
		list = append(list, x.String())
	}
	return list
}

// state is one as the provider writes it: what is not given is there all the same.
const state = `{
  "version": 4,
  "terraform_version": "1.9.8",
  "serial": 3,
  "lineage": "a",
  "outputs": {},
  "resources": [
    {
      "mode": "data",
      "type": "aws_appmesh_mesh",
      "name": "other",
      "instances": [{"attributes": {"name": "other"}}]
    },
    {
      "mode": "managed",
      "type": "aws_db_instance",
      "name": "db",
      "instances": [{"attributes": {"password": "secret"}}]
    },
    {
      "mode": "managed",
      "type": "aws_appmesh_mesh",
      "name": "m",
      "provider": "provider[\"registry.example/hashicorp/aws\"]",
      "instances": [{"schema_version": 0, "attributes": {"arn": "a", "id": "shop", "mesh_owner": "1", "name": "shop", "spec": [], "tags": {}, "tags_all": {}}}]
    },
    {
      "module": "module.app",
      "mode": "managed",
      "type": "aws_appmesh_virtual_node",
      "name": "n",
      "instances": [
        {
          "index_key": "blue",
          "attributes": {
            "mesh_name": "shop",
            "name": "blue",
            "spec": [
              {
                "backend": [{"virtual_service": [{"client_policy": [], "virtual_service_name": "s.local"}]}],
                "backend_defaults": [
                  {
                    "client_policy": [
                      {"tls": [{"certificate": [], "enforce": false, "ports": [443], "validation": [{"subject_alternative_names": [], "trust": [{"acm": [], "file": [{"certificate_chain": "/a.pem"}], "sds": []}]}]}]}
                    ]
                  }
                ],
                "listener": [
                  {
                    "connection_pool": [],
                    "health_check": [
                      {"healthy_threshold": 2, "interval_millis": 5000, "path": "", "port": 0, "protocol": "http", "timeout_millis": 2000, "unhealthy_threshold": 2}
                    ],
                    "outlier_detection": [],
                    "port_mapping": [{"port": 80, "protocol": "http"}],
                    "timeout": [{"grpc": [], "http": [{"idle": [{"unit": "s", "value": 0}], "per_request": []}], "http2": [], "tcp": []}],
                    "tls": []
                  }
                ],
                "logging": [{"access_log": [{"file": [{"format": [], "path": "/dev/stdout"}]}]}],
                "service_discovery": [{"aws_cloud_map": [{"attributes": {"stage": "one"}, "namespace_name": "shop.local", "service_name": "blue"}], "dns": []}]
              }
            ],
            "tags": {"team": "a"}
          }
        }
      ]
    },
    {
      "mode": "managed",
      "type": "aws_appmesh_virtual_router",
      "name": "r",
      "instances": [{"attributes": {"mesh_name": "shop", "name": "r", "spec": [{"listener": [{"port_mapping": [{"port": 80, "protocol": "http"}]}]}]}}]
    },
    {
      "mode": "managed",
      "type": "aws_appmesh_route",
      "name": "all",
      "instances": [
        {
          "attributes": {
            "mesh_name": "shop",
            "name": "all",
            "virtual_router_name": "r",
            "spec": [
              {
                "grpc_route": [],
                "http2_route": [],
                "http_route": [
                  {
                    "action": [{"weighted_target": [{"port": 0, "virtual_node": "blue", "weight": 0}, {"port": 80, "virtual_node": "green", "weight": 100}]}],
                    "match": [
                      {"header": [{"invert": false, "match": [{"exact": "", "prefix": "", "range": [{"start": 0, "end": 9}], "regex": "", "suffix": ""}], "name": "x"}], "method": "", "path": [], "port": 0, "prefix": "/", "query_parameter": [], "scheme": ""}
                    ],
                    "retry_policy": [],
                    "timeout": []
                  }
                ],
                "priority": 0,
                "tcp_route": []
              }
            ]
          }
        }
      ]
    }
  ],
  "check_results": null
}
`

func TestAStateIsReadAsTheProviderMeantIt(t *testing.T) {
	found := read(state)
	no := false
	want := []*mesh.Resource{
		{Kind: mesh.KindMesh, Mesh: "shop", Name: "shop", ObjectName: "shop", Spec: &mesh.MeshSpec{AWSName: "shop", EgressFilter: &mesh.EgressFilter{Type: mesh.EgressDropAll}}},
		{Kind: mesh.KindVirtualNode, Mesh: "shop", Name: "blue", ObjectName: "blue", Spec: &mesh.VirtualNodeSpec{
			AWSName: "blue", MeshRef: &mesh.MeshRef{Name: "shop"},
			Backends: []mesh.Backend{{VirtualService: mesh.VirtualServiceBackend{VirtualServiceRef: &mesh.Reference{Name: "s.local"}}}},
			BackendDefaults: &mesh.BackendDefaults{ClientPolicy: &mesh.ClientPolicy{TLS: &mesh.ClientPolicyTLS{
				Enforce: &no, Ports: []uint32{443}, Validation: mesh.TLSValidation{Trust: mesh.TLSTrust{File: &mesh.TLSFileTrust{CertificateChain: "/a.pem"}}},
			}}},
			Listeners: []mesh.VirtualNodeListener{{
				PortMapping: mesh.PortMapping{Port: 80, Protocol: "http"},
				HealthCheck: &mesh.HealthCheckPolicy{HealthyThreshold: 2, UnhealthyThreshold: 2, IntervalMillis: 5000, TimeoutMillis: 2000, Port: 80, Protocol: "http"},
				Timeout:     &mesh.ListenerTimeout{HTTP: &mesh.HTTPTimeout{Idle: &mesh.Duration{Unit: "s"}}},
			}},
			Logging: &mesh.Logging{AccessLog: &mesh.AccessLog{File: &mesh.FileAccessLog{Path: "/dev/stdout"}}},
			ServiceDiscovery: &mesh.ServiceDiscovery{AWSCloudMap: &mesh.AWSCloudMapServiceDiscovery{
				NamespaceName: "shop.local", ServiceName: "blue", Attributes: []mesh.AWSCloudMapInstanceAttribute{{Key: "stage", Value: "one"}},
			}},
		}},
		{Kind: mesh.KindVirtualRouter, Mesh: "shop", Name: "r", ObjectName: "r", Spec: &mesh.VirtualRouterSpec{
			AWSName: "r", MeshRef: &mesh.MeshRef{Name: "shop"}, Listeners: []mesh.VirtualRouterListener{{PortMapping: mesh.PortMapping{Port: 80, Protocol: "http"}}},
			Routes: []mesh.RouteSpec{{Name: "all", HTTPRoute: &mesh.HTTPRoute{
				Match: mesh.HTTPRouteMatch{Prefix: "/", Headers: []mesh.HTTPRouteHeader{{Name: "x", Invert: &no, Match: &mesh.HeaderMatchMethod{Range: &mesh.MatchRange{End: 9}}}}},
				Action: mesh.RouteAction{WeightedTargets: []mesh.WeightedTargetSpec{
					{VirtualNodeRef: &mesh.Reference{Name: "blue"}}, {VirtualNodeRef: &mesh.Reference{Name: "green"}, Port: 80, Weight: 100},
				}},
			}}},
		}},
	}
	if d := cmp.Diff(want, found.Resources, cmpopts.IgnoreFields(mesh.Resource{}, "Doc"), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s\n%v", d, told(found))
	}
	findings := []string{
		`f.tfstate:25:58: aws_appmesh_mesh.m.spec.egress_filter: defaulted: is DROP_ALL, as App Mesh takes it`,
		`f.tfstate:52:24: module.app.aws_appmesh_virtual_node.n["blue"].spec[0].listener[0].health_check[0].port: defaulted: is 80, as App Mesh takes it`,
		`f.tfstate:64:13: module.app.aws_appmesh_virtual_node.n["blue"].tags: dropped: there are no AWS tags here`,
	}
	if d := cmp.Diff(findings, told(found)); d != "" {
		t.Error(d)
	}
	if len(found.Context) != 1 || found.Context[0].Kind != "aws_db_instance" || found.Context[0].Line != 14 {
		t.Errorf("%+v", found.Context)
	}
}

func TestAnAnswerOfShowIsReadInAllItsModules(t *testing.T) {
	resource := func(address, name string) string {
		return fmt.Sprintf(`{"address": %q, "mode": "managed", "type": "aws_appmesh_mesh", "name": "m", "values": {"name": %q, "spec": [{"egress_filter": [{"type": "bogus"}]}]}}`, address, name)
	}
	found := read(`{"format_version": "1.0", "terraform_version": "1.9.8", "values": {"outputs": {}, "root_module": {"resources": [` + resource("aws_appmesh_mesh.m[0]", "a") + `],
  "child_modules": [{"address": "module.x", "child_modules": [{"resources": [` + resource("module.x.module.y.aws_appmesh_mesh.m", "b") + `]}]}]}}}`)
	want := []string{
		`f.tfstate:1:271: aws_appmesh_mesh.m[0].spec[0].egress_filter[0].type: refused: "bogus" is not one of ALLOW_ALL, DROP_ALL`,
		`f.tfstate:2:251: module.x.module.y.aws_appmesh_mesh.m.spec[0].egress_filter[0].type: refused: "bogus" is not one of ALLOW_ALL, DROP_ALL`,
	}
	if d := cmp.Diff(want, told(found)); d != "" || len(found.Refused) != 2 {
		t.Error(d)
	}
}

func TestWhatIsNoStateIsToldByItsPlace(t *testing.T) {
	for content, want := range map[string]string{
		"{\n \"resources\": 7}":                                       "f.tfstate:2:16: refused: is no state of Terraform: 7 stands where [ has to",
		"{\n \"resources\": [":                                        "f.tfstate:2:16: refused: is no state of Terraform: ",
		`{"resources": [{"type": 7}]}`:                                "is no state of Terraform: a resource has no type and name that are texts",
		"resource \"aws_appmesh_mesh\" \"m\" {}":                      "f.tfstate:1:1: refused: is no state of Terraform: ",
		strings.Repeat(`{"values": `, 200) + strings.Repeat("}", 200): "its modules are nested too deep",
	} {
		if got := told(read(content)); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%.60s: %v", content, got)
		}
	}
}

// A secret of another resource is in nothing that is found.
func TestNothingOfOtherResourcesIsTold(t *testing.T) {
	found := read(strings.Replace(state, `"protocol": "http"`, `"protocol": 7`, 2))
	if len(found.Refused) == 0 {
		t.Fatal("nothing is refused")
	}
	if text := fmt.Sprintf("%+v", *found); strings.Contains(text, "secret") {
		t.Error(text)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(state)
	f.Add(`{"values": {"root_module": {"resources": [{"type": "aws_appmesh_route", "values": {"spec": [null]}}]}}}`)
	f.Fuzz(func(t *testing.T, content string) {
		found := read(content)
		lines := strings.Count(content, "\n") + 1
		if i := slices.IndexFunc(found.Findings, func(f dialect.Finding) bool { return f.Line > lines }); i >= 0 {
			t.Errorf("%s is in none of %d lines", found.Findings[i], lines)
		}
		for _, r := range found.Resources {
			if docs, err := mesh.Split("again", r.Encode()); err != nil || len(docs) != 1 {
				t.Fatalf("%v cannot be written: %v", r, err)
			}
		}
	})
}
