package views

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/proxy"
)

// Config is what a proxy of a virtual node or gateway is to have: by the view that is
// followed from the address it is bound to, else by that of an ordinary shape. which picks
// the resources that are listed, full adds what is in each.
func (v *Views) Config(of proxy.Ref, bind string, full bool, which func(typeURL, name string) bool) (*api.ProxyConfig, error) {
	in := v.source.Look().nodeInputs()
	set := v.followed(of, bind)
	out := &api.ProxyConfig{Node: &api.VirtualNodeRef{Mesh: of.Mesh, Name: of.Name, Gateway: of.Gateway()}, PolicyRevision: in.stamp, Assumed: set == nil}
	if set == nil {
		var err error
		if set, err = v.translate(in).set(Key{of, anyShapeOf(of)}); err != nil {
			return nil, fmt.Errorf("translate %s: %w", of, err)
		}
	}
	for _, typeURL := range nodeTypes {
		out.Types = append(out.Types, &api.TypeStatus{TypeUrl: typeURL, Version: set.TypeVersion(typeURL)})
		for _, r := range set.Type(typeURL) {
			if !which(typeURL, r.Name) {
				continue
			}
			one := &api.ProxyConfig_Resource{TypeUrl: typeURL, Name: r.Name, Version: r.Version}
			if full {
				var err error
				if one.Config, err = inWords(r); err != nil {
					return nil, err
				}
			}
			out.Resources = append(out.Resources, one)
		}
	}
	return out, nil
}

// followed is the set of the view of a shape with that address, nil if there is none.
func (v *Views) followed(of proxy.Ref, bind string) *ads.Set {
	v.mu.Lock()
	defer v.mu.Unlock()
	for key := range v.shapes[of] {
		if k := v.nodes[key]; key.Shape.Bind == bind && k.view.Streams() > 0 {
			return k.view.Set()
		}
	}
	return nil
}

// inWords is a resource as Envoy's own documents have it.
func inWords(r *ads.Resource) (*structpb.Struct, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByURL(r.Type)
	if err != nil {
		return nil, fmt.Errorf("internal error: the type of %s: %w", r.Name, err)
	}
	m, s := t.New().Interface(), &structpb.Struct{}
	if err := proto.Unmarshal(r.Body, m); err != nil {
		return nil, fmt.Errorf("internal error: %s: %w", r.Name, err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err == nil {
		err = protojson.Unmarshal(text, s)
	}
	if err != nil {
		return nil, fmt.Errorf("internal error: show %s: %w", r.Name, err)
	}
	return s, nil
}
