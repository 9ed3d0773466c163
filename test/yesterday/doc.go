// Package yesterday holds a release against the one before. testdata has what a
// binary of that release left behind: data directories, a signer's folder,
// configurations, and each message that its agent and its server said to each other
// (testdata/README.md says how they were made). Today's binary is started on them.
package yesterday
