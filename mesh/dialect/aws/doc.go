// Package aws reads and writes the JSON of `aws appmesh`: the inputs of create-… and
// update-…, whole or only their spec, and saved outputs of describe-…, one or a list of
// them, or one after the other. The YAML that the AWS CLI writes has the same form.
//
// Which kind an object is, its names tell, or else the members of its spec.
package aws
