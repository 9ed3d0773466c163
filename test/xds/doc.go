// Package xdstest holds the tests of folder xds that need a real Envoy: every
// golden view is accepted, hostile paths stop at a generated listener, native
// denials explain themselves.
//
// [Load] reads a golden case, for the golden test beside the translator as well, and
// [RandomMesh] writes a mesh of all that is translated.
package xdstest
