// Package model is what is stored, understood and joined: the objects of all kinds
// ([kinds.Object]), the graph of the meshes, what NodeGroups decide, and the lists of token
// issuers and policy sources, valid together.
//
// A [Model] is made of the store's rows ([Load]), of another one and a change that is being
// made ([Model.With], then [Model.Written], as it will be read back), or of another one and
// the changes of the store since ([Model.Follow]). Each costs what changes; what is wrong
// is looked for in everything.
//
// Pure values, which share what has not changed with what they were made of. It must not
// know who asks, what is served of it, or when the store is read.
package model
