// Package cloudformation reads and writes CloudFormation templates, in YAML with long and
// short functions and in JSON.
//
//	template -> parameters, mappings, conditions -> values of properties -> dialect.Drafts
//
// Functions are evaluated by what is given: parameters by their values or defaults, the
// exports of other stacks by the templates that are read with it or by name. What only AWS
// knows is opaque: a text stands for it where a string stands, else its object is
// incomplete. Resources of other types are context.
//
// A ${NAME} is the template's own: nothing may fill such placeholders before it is read.
package cloudformation
