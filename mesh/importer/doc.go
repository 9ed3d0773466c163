// Package importer brings in what App Mesh's users have, in whatever form: it tells the
// form of each file by its content, fills placeholders, has the form's reader find the
// objects, and reports what became of each object and field.
//
//	files -> formOf -> placeholder.Fill -> crd.Read, aws.Read, … -> Report -> Manifests
//
// An object is complete, or it is named with the reason why it is not: nothing that could
// not be read, known or translated is applied. What is complete leaves as manifests in CRD
// form, which go the way of every apply.
//
// It must not know the store, the server, nor where files come from: it is pure.
package importer
