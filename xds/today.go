package xds

import (
	"fmt"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/proxy"
)

// Stamped returns routes that Build made as it would have made them under another policy
// revision.
func Stamped(r *ads.Resource, revision string) (*ads.Resource, error) {
	var rc routev3.RouteConfiguration
	if err := proto.Unmarshal(r.Body, &rc); err != nil {
		return nil, fmt.Errorf("routes %s: %w", r.Name, err)
	}
	changed := false
	for _, host := range rc.GetVirtualHosts() {
		filter := host.GetTypedPerFilterConfig()[authzFilter]
		if filter == nil {
			continue
		}
		var of authzv3.ExtAuthzPerRoute
		if err := filter.UnmarshalTo(&of); err != nil {
			return nil, fmt.Errorf("routes %s: %w", r.Name, err)
		}
		extensions := of.GetCheckSettings().GetContextExtensions()
		if was, stamped := extensions[proxy.PolicyRevisionKey]; !stamped || was == revision {
			continue
		}
		extensions[proxy.PolicyRevisionKey] = revision
		is, err := pack(&of)
		if err != nil {
			return nil, fmt.Errorf("routes %s: %w", r.Name, err)
		}
		host.TypedPerFilterConfig[authzFilter], changed = is, true
	}
	if !changed {
		return r, nil
	}
	return ads.NewResource(r.Type, r.Name, &rc)
}

// Among returns an assignment that Build made with those of its endpoints alone that are
// among others.
func Among(r *ads.Resource, is func(address string, port uint32) bool) (*ads.Resource, error) {
	var cla endpointv3.ClusterLoadAssignment
	if err := proto.Unmarshal(r.Body, &cla); err != nil {
		return nil, fmt.Errorf("endpoints %s: %w", r.Name, err)
	}
	left, all := []*endpointv3.LbEndpoint(nil), 0
	for _, group := range cla.GetEndpoints() {
		for _, e := range group.GetLbEndpoints() {
			all++
			if at := e.GetEndpoint().GetAddress().GetSocketAddress(); is(at.GetAddress(), at.GetPortValue()) {
				left = append(left, e)
			}
		}
	}
	if len(left) == all {
		return r, nil
	}
	if cla.Endpoints = nil; len(left) > 0 {
		cla.Endpoints = []*endpointv3.LocalityLbEndpoints{{LbEndpoints: left}}
	}
	made, err := ads.NewResource(r.Type, r.Name, &cla)
	if err != nil {
		return nil, err
	}
	return made.Salted(r.Version), nil // its cluster may have changed with it
}
