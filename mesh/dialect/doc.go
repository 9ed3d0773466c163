// Package dialect owns what the forms have in common in which App Mesh was written
// beside its CRDs: what is found in a file, by field, and how objects that stand in
// several files come together. Each form has a folder of its own below.
//
//	files -> aws.Read, cloudformation.Read -> Drafts -> Found -> mesh.Resource
//
// [Drafts] collects the objects of all files, since one object may stand in several
// of them: a route has a file of its own, and belongs into its router. Each reader has
// the same form, [Reader]. [Drafts.Found] then makes mesh's resources of them, which
// obey every rule that the same object in CRD form does.
//
// The way back is [Write]: resources in the API's structure, which the forms' folders
// write, and every loss by field.
//
//	mesh.Resource -> Write -> aws.Write, cloudformation.Write
//
// It must not know where files come from, nor what is done with what was found.
package dialect

import "signet.example/mesh"

// Reader reads one file of its form into drafts. What is wrong with it is told by
// [Found], with everything else.
type Reader func(*Drafts, File)

// File is one input: its name for messages, and its text.
type File struct {
	Name    string
	Content []byte
	// Unfilled is as in manifest.Form: placeholders of a template that have no value.
	Unfilled func(text string) (written string, names []string)
}

// Options are what files of these forms leave open.
type Options struct {
	// Mesh is that of objects that name none.
	Mesh string
	// Name is that of an object whose file has neither a name nor anything to tell it by.
	Name string
	// Kind is that of an object whose file does not tell it.
	Kind mesh.Kind
	// Router is that of a route that names none.
	Router string
	// Gateway is that of a gateway route that names none.
	Gateway string

	// Parameters are the values of a CloudFormation template's parameters.
	Parameters map[string]string
	// Exports are what other stacks export, by name, for ImportValue.
	Exports map[string]string
	// Region, AccountID and StackName are the values of the pseudo parameters.
	Region, AccountID, StackName string
}
