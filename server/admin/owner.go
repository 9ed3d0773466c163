package admin

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"signet.example/api"
	"signet.example/internal/manifest"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/server/kinds"
)

// owner is whose the objects of an apply are (docs/decisions/065).
type owner struct {
	name            string
	prune, takeOver bool
}

var ownerForm = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9._/@-]{0,126}[a-zA-Z0-9])?$`)

// ownership is what an apply asks for.
func ownership(req *api.ApplyRequest) (owner, error) {
	o := owner{req.GetOwner(), req.GetPrune(), req.GetTakeOver()}
	switch {
	case o.name != "" && !ownerForm.MatchString(o.name):
		return o, fault.New(fault.Invalid, "the owner %q must be up to 128 letters, digits and . _ / @ -, and begin and end with a letter or digit", plain.Text(o.name))
	case o.name == "" && (o.prune || o.takeOver):
		return o, fault.New(fault.Invalid, "to prune or to take over needs an owner: whose objects they are")
	}
	return o, nil
}

// of is whose an object becomes. An apply that names no owner leaves it whose it is.
func (o owner) of(_ kinds.Key, stored *kinds.Object) string {
	if o.name == "" && stored != nil {
		return stored.Owner
	}
	return o.name
}

// emptied warns of files that have no object, of which nobody knows what they had.
func (in *intake) emptied() {
	for _, file := range in.empty {
		in.warnings = append(in.warnings, file+": there is no object in it")
	}
}

// fewObjects are named each of what is an owner's; more are counted.
const fewObjects = 3

// ofOwners warns of what a change that names no owner does to objects of owners: what it leaves
// as it is needs no warning.
func ofOwners(changes []*api.Change) []string {
	of := map[string][]string{}
	for _, c := range changes {
		if owner := cmp.Or(c.GetOwnerBefore(), c.GetOwner()); owner != "" && c.GetAction() != api.Change_UNCHANGED {
			of[owner] = append(of[owner], kinds.Key{Kind: c.GetKind(), Mesh: c.GetMesh(), Name: c.GetName()}.String())
		}
	}
	var out []string
	for _, owner := range slices.Sorted(maps.Keys(of)) {
		out = append(out, fmt.Sprintf("of owner %s, whose next apply may undo this: %s", owner, fewOf(of[owner])))
	}
	return out
}

// fewOf lists the first few of some objects, and counts the others.
func fewOf(objects []string) string {
	more := ""
	if n := len(objects) - fewObjects; n > 0 {
		objects, more = objects[:fewObjects], fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(objects, ", ") + more
}

// owned refuses whoever names an owner objects of another.
func (in *intake) owned(now Model, by owner) {
	if kinds.AssignMeshes(in.objects, kinds.Meshes(now.Graph(), now.Objects())...) != nil {
		return // which join tells
	}
	for _, o := range in.objects {
		stored := now.Objects().Get(o.Key())
		switch {
		case by.name == "" || stored == nil || stored.Owner == "" || stored.Owner == by.name || by.takeOver:
		default:
			in.bad(o.Doc.FieldError("metadata.name", fmt.Sprintf("%s is of owner %s: apply with --take-over makes it %s's", o.Key(), stored.Owner, by.name)))
		}
	}
}

// pruned are the owner's objects that are not given any more. Of a mesh that others have
// objects in, it is refused: what they have would go with it.
func (in *intake) pruned(now Model, by owner) ([]*kinds.Object, error) {
	if !by.prune || len(in.errs) > 0 { // what cannot be read is not what is given no longer
		return nil, nil
	}
	if err := kinds.AssignMeshes(in.objects, kinds.Meshes(now.Graph(), now.Objects())...); err != nil {
		return nil, nil // which join tells
	}
	given := map[kinds.Key]bool{}
	for _, o := range in.objects {
		given[o.Key()] = true
	}
	if len(given) == 0 {
		return nil, fault.New(fault.Invalid, "there is no object in what is given: that would delete all of owner %s; signet delete does that", by.name)
	}
	for _, file := range in.empty { // a checkout that was cut off, as likely as not
		in.bad(&manifest.Error{File: file, Msg: "there is no object in it, so that --prune would delete what was: delete the file where that is meant"})
	}
	var gone []*kinds.Object
	var leaves []kinds.Key
	for k, o := range now.Objects().All() {
		if o.Owner == by.name && !given[k] {
			gone, leaves = append(gone, o), append(leaves, k)
		}
	}
	return gone, meshesAlone(now, leaves)
}
