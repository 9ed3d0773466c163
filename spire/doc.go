// Package spire turns the registrations of a SPIRE server into Signet's Entries and NodeGroups: what
// `spire-server entry show -output json` prints, and what `entry create -data` reads. It owns the
// reading of both forms and the report of what became of each registration.
//
// It must not know a server or a file. Which selectors there are it asks of attestation, so that a
// method that comes later is taken by its selectors.
//
// Main types in reading order: Registration, Options, Report.
package spire
