package attestation_test

import (
	"slices"
	"strings"
	"testing"

	"signet.example/attestation"
	"signet.example/identity"
)

func TestSelectorsThatNoWorkloadCanHaveAreRefused(t *testing.T) {
	hash := strings.Repeat("a", 64)
	good := []string{
		"unix:uid:0", "unix:uid:4294967295", "unix:gid:1", "unix:path:/usr/bin/web", "unix:path:/a b", "unix:sha256:" + hash, "signet:proxy:web-1",
		"systemd:unit:web@1.service", "systemd:slice:-.slice", "systemd:invocation:" + hash[:32],
	}
	if err := attestation.CheckWorkload(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		"unix:uid:-1", "unix:uid:007", "unix:uid:+1", "unix:uid:root", "unix:uid:4294967296", "unix:uid:", "unix:uid",
		"unix:path:web", "unix:path:./web", "unix:path:/a/../b", "unix:path:/a/", "unix:path://a", "unix:path:/",
		"unix:sha256:" + hash[1:], "unix:sha256:" + strings.ToUpper(hash), "unix:sha256:" + hash[1:] + "g",
		"unix:user:web", "unix:pid:1", "docker:label:a:b", "signet:agent:a", "signet:proxy:a/b", "signet:proxy:..",
		"systemd:unit:web", "systemd:unit:.service", "systemd:unit:a b.service", "systemd:slice:web.service", "systemd:invocation:" + hash,
	} {
		if all := identity.FieldErrors(attestation.CheckWorkload([]string{"unix:uid:1", bad})); len(all) != 1 || all[0].Path != "spec.selectors[1]" || !strings.Contains(all[0].Msg, bad[:8]) {
			t.Errorf("%s: %v", bad, all)
		}
	}
}

// What is no selector, or one of too many, is refused where a spec is built.
func TestWhatIsNoSelectorIsNotCheckedTwice(t *testing.T) {
	if err := attestation.CheckWorkload(append([]string{"", "unix"}, slices.Repeat([]string{"unix:uid:1"}, 100)...)); err != nil {
		t.Error(err)
	}
}

func FuzzCheckWorkload(f *testing.F) {
	f.Add("unix:path:/usr/bin/web")
	f.Add("systemd:unit:web@1.service")
	f.Fuzz(func(t *testing.T, s string) {
		if attestation.CheckWorkload([]string{s}) != nil {
			return
		}
		if _, err := identity.ParseSelector(s); err == nil && strings.ContainsAny(s, "\n\r\x00\x1b*") && !strings.HasPrefix(s, "unix:path:") {
			t.Errorf("%q was taken", s)
		}
	})
}
