// Package policy owns Rego: it makes an immutable revision of a tree of modules, which
// package repo has read and package check has tested, compiles that and evaluates it, both
// within what package sandbox lets it do.
//
// It must not know Envoy, gRPC, the store or who asks: package authz turns a
// request into an Input, and what a Decision means to Envoy is authz's too.
//
// Main types in order: Revision (what is distributed), Compiled (what evaluates), Input
// and Decision.
//
// # The contract
//
// A policy is sets of named rules in package signet.authz, which is asked for
// every destination, and in signet.authz.<mesh>.<node>, which is asked for that
// virtual node; signet.authz.<node> is short for it while it can mean one only:
//
//	package signet.authz.shop.orders
//
//	allow contains "web may read orders" if {
//		input.request.method == "GET"
//		input.source.spiffe_id == "spiffe://prod.example/shop/web"
//	}
//
// A request is allowed if some allow rule holds and no deny rule does. Names
// are constants, since they are the rules' ids in explanations.
// Package signet.lib.<anything> is for helpers; package envoy.authz with the
// rule allow works beside it as it does under opa-envoy-plugin.
//
// # Concurrency
//
// All values are immutable once made. Compiled.Evaluate may be called from any
// number of goroutines; the package starts none.
package policy
