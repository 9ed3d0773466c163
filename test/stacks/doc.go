// Package stacks holds the certificates of the CA before programs that others
// wrote: each parses root, issuing certificate and leaf, and verifies the chain.
// What each makes of another trust domain's name under our root is the table of
// docs/DEVIATIONS.md, by row.
package stacks
