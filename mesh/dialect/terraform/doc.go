// Package terraform reads the state of Terraform's AWS provider: a state file of version 4,
// or what `terraform show -json` answers. Resources of other types are context: of those
// only type and name are looked at, since a state has secrets.
//
// The configuration itself, in HCL, is not read: it has variables, modules and loops, and
// its state has what came of them.
package terraform
