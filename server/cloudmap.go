package server

import (
	"context"

	"signet.example/internal/watched"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/cloudmap"
)

// openCloudMap makes the part that asks AWS Cloud Map, where the configuration names one.
func (s *server) openCloudMap(ctx context.Context, changed watched.Signal) error {
	if !s.cfg.CloudMap.On() {
		return nil
	}
	asker, err := s.cfg.CloudMap.Open(ctx)
	if err != nil {
		return err
	}
	s.found = cloudmap.New(cloudmap.Config{
		Asked: s.askedOfCloudMap, Asker: asker, Every: s.cfg.CloudMap.Every, Shared: s.common.found,
		Changed: changed.Wake, Log: s.log, Clock: s.clock, Failures: s.metrics.foundErrors,
	})
	return nil
}

// askedOfCloudMap is what is asked: of the virtual nodes that say so, those of which
// nothing is registered (D19), or nothing that counts.
func (s *server) askedOfCloudMap() map[proxy.Ref]cloudmap.Question {
	asked := map[proxy.Ref]cloudmap.Question{}
	awaits, _ := s.common.awaited.Get() // before what is registered
	graph, registered := s.model().Graph(), s.endpoints.Snapshot()
	for _, name := range graph.Meshes() {
		for _, n := range graph.Nodes(name) {
			if n.Spec == nil || n.Spec.ServiceDiscovery == nil || n.Spec.ServiceDiscovery.AWSCloudMap == nil || registered.Of(n.Ref) != nil && !awaits.Awaits(n.Ref, registered.Ready) {
				continue
			}
			asked[n.Ref] = questionOf(n.Spec.ServiceDiscovery.AWSCloudMap, graph.Mesh(name))
		}
	}
	return asked
}

func questionOf(d *mesh.AWSCloudMapServiceDiscovery, in *mesh.MeshSpec) cloudmap.Question {
	q := cloudmap.Question{Namespace: d.NamespaceName, Service: d.ServiceName, Preference: d.IPPreference, Attributes: map[string]string{}}
	if q.Preference == "" && in != nil && in.MeshServiceDiscovery != nil { // a node's own is first
		q.Preference = in.MeshServiceDiscovery.IPPreference
	}
	for _, a := range d.Attributes {
		q.Attributes[a.Key] = a.Value
	}
	return q
}

// arrive ends the wait for virtual nodes of which something healthy is registered.
func (s *server) arrive() { s.arrivals.Look(s.common.awaited, s.endpoints.Snapshot) }

// foundElsewhere reports whether instances of a virtual node are known although none is
// registered.
func (s *server) foundElsewhere(node proxy.Ref) bool {
	list, _ := s.found.Answers().Of(node)
	return len(list) > 0
}
