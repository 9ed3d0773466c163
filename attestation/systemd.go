package attestation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"signet.example/identity"
)

// systemdForms are what ofSystemd gives.
var systemdForms = identity.Forms{
	"systemd:unit":       checkUnit(".service"),
	"systemd:slice":      checkUnit(".slice"),
	"systemd:invocation": checkInvocation,
}

// ofSystemd returns the unit of the system's manager in which the process runs, its
// slice, and the invocation id: by the process's cgroup, which only root can choose
// (and, below a unit, whom it delegates to). Units of a user's own manager are not
// told apart: a user makes and names those, so that all of them are
// user@<uid>.service. Nothing is asked of systemd itself.
func ofSystemd(_ context.Context, p *Peer, proc *proc, _ identity.Selectors) (identity.Selectors, error) {
	var buf [1024]byte
	raw, err := proc.read("cgroup", buf[:])
	if err != nil {
		return nil, p.orGone(err)
	}
	unit := systemUnitOf(unifiedCgroup(raw))
	if unit == "" {
		return nil, nil
	}
	sels := identity.Selectors{
		systemdSelector("unit", filepath.Base(unit)),
		systemdSelector("slice", sliceOf(unit)),
	}
	if id := p.attestor.invocation(unit); id != "" {
		sels = append(sels, systemdSelector("invocation", id))
	}
	// A name that no entry can ask for is no selector.
	checked := sels[:0]
	for _, s := range sels {
		if systemdForms.Has(s) {
			checked = append(checked, s)
		}
	}
	return checked, nil
}

// checkUnit accepts the names of systemd's units of one type (systemd.unit(5)).
func checkUnit(suffix string) func(string) error {
	return func(s string) error {
		if len(s) > 255 || len(s) == len(suffix) || !strings.HasSuffix(s, suffix) {
			return fmt.Errorf("want a name that ends with %s", suffix)
		}
		for _, c := range s {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(`:-_.\@`, c) {
				return fmt.Errorf("%q is not allowed in the name of a unit", c)
			}
		}
		return nil
	}
}

func checkInvocation(s string) error {
	if len(s) != 32 || strings.Trim(s, "0123456789abcdef") != "" {
		return errors.New("want 32 hex digits in lower case")
	}
	return nil
}

func systemdSelector(key, value string) identity.Selector {
	return identity.Selector{Type: "systemd", Value: key + ":" + value}
}

// unifiedCgroup is the path in cgroup v2 (cgroups(7), "/proc/[pid]/cgroup": the
// line with hierarchy 0), "" where there is none.
func unifiedCgroup(raw []byte) string {
	for line := range bytes.Lines(raw) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\n"), "0::"); ok {
			return rest
		}
	}
	return ""
}

// systemUnitOf is the path of the unit of the system's manager that a cgroup
// belongs to: below slices, the first that is a service. What is further below is
// that unit's own affair, whatever it is called. "" for a scope (a login session, a
// container), for a slice alone, and for a path from another cgroup namespace.
func systemUnitOf(cgroup string) string {
	if !filepath.IsAbs(cgroup) || filepath.Clean(cgroup) != cgroup {
		return ""
	}
	at := ""
	for name := range strings.SplitSeq(cgroup[1:], "/") {
		at += "/" + name
		switch {
		case strings.HasSuffix(name, ".slice"):
		case strings.HasSuffix(name, ".service"):
			return at
		default:
			return ""
		}
	}
	return ""
}

// sliceOf is the slice that a unit lies in; "-.slice" is the root.
func sliceOf(unit string) string {
	if slice := filepath.Base(filepath.Dir(unit)); slice != "/" {
		return slice
	}
	return "-.slice"
}

// invocation is the id that systemd gave to this start of a unit: 32 hexadecimal
// digits, by the attribute of its cgroup that only root can write; "" where it
// cannot be read.
func (a *Attestor) invocation(unit string) string {
	root := a.testOnlyCgroups
	if root == "" {
		root = new(Cgroups).root()
	}
	if root == "" {
		return ""
	}
	var buf [64]byte
	n, err := unix.Lgetxattr(filepath.Join(root, unit), "trusted.invocation_id", buf[:])
	if err != nil {
		return "" // there is none, or trusted attributes are not for us (CAP_SYS_ADMIN)
	}
	id := string(buf[:n])
	if checkInvocation(id) != nil {
		return ""
	}
	return id
}
