package main

import (
	"runtime/debug"
	"testing"
)

func TestTheVersionIsTheMakefilesElseTheModulesElseTheCommit(t *testing.T) {
	commit := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	dirty := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	built := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	for _, tc := range []struct {
		stamped string
		info    *debug.BuildInfo
		want    string
	}{
		{"v1.2.3", built("v9.9.9", commit), "v1.2.3"},
		{"", built("v1.2.2", commit), "v1.2.2"},
		{"", built("(devel)", commit), short(commit.Value)},
		{"", built("", commit, dirty), short(commit.Value) + "-dirty"},
		{"", built("(devel)"), "unknown"},
		{"", nil, "unknown"},
	} {
		if got := versionOf(tc.stamped, tc.info); got != tc.want {
			t.Errorf("stamped %q, built %+v: %q, want %q", tc.stamped, tc.info, got, tc.want)
		}
	}
}
