// Package check is what is wrong: with what there is ([Findings], of one [Look] at
// everything), and with what a change would make of it ([Warnings]).
//
// It is pure. It must not know where anything that it looks at comes from, and it changes
// nothing. What has an id here has a section in docs/CHECKS.md.
package check
