// Package groups is what NodeGroups decide: which hosts are in one by what they have
// shown of themselves ([Placing]), which identities workloads on those hosts may hold
// ([Granted], of Entries and Bindings), which virtual nodes they may host ([Hosts]), and
// what of it does not go together ([Overlap], [Twins]).
//
// Pure values, which share what has not changed with what they were made of. It must not
// know how objects are stored or read, nor who asks.
package groups
