package identity

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Applications says who may speak with a proxy's identity by its outbound
// listener. The zero value leaves it to the agent: the one owner of all of the
// node's application listeners, as it found it first.
type Applications struct {
	// UIDs are the users whose processes may.
	UIDs []uint32
	// Anyone lets every process of the host, which is warned of.
	Anyone bool
	// Namespace lets every process of the proxy's network namespace, where that is
	// not the agent's.
	Namespace bool
}

// The two words that stand in the place of selectors.
const (
	applicationsAnyone    = "anyone"
	applicationsNamespace = "namespace"
)

// IsZero reports whether nothing was said.
func (a Applications) IsZero() bool { return len(a.UIDs) == 0 && !a.Anyone && !a.Namespace }

// Allows reports whether processes of a user may.
func (a Applications) Allows(uid uint32) bool { return a.Anyone || slices.Contains(a.UIDs, uid) }

// Strings returns a as the spec has it.
func (a Applications) Strings() []string {
	var out []string
	if a.Anyone {
		out = append(out, applicationsAnyone)
	}
	if a.Namespace {
		out = append(out, applicationsNamespace)
	}
	for _, uid := range a.UIDs {
		out = append(out, "unix:uid:"+strconv.FormatUint(uint64(uid), 10))
	}
	return out
}

// buildApplications reads the list of a spec. Each element lets somebody more:
// unlike a binding's selectors, they need not all hold.
func buildApplications(list []string) (Applications, error) {
	const field = "spec.applications"
	var a Applications
	if len(list) > maxSelectors {
		return a, NewFieldError(field, "%d elements: at most %d", len(list), maxSelectors)
	}
	for i, one := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		if slices.Contains(list[:i], one) {
			return a, NewFieldError(at, "%s is given twice", Abbreviate(one))
		}
		value, isUID := strings.CutPrefix(one, "unix:uid:")
		switch {
		case one == applicationsAnyone:
			a.Anyone = true
		case one == applicationsNamespace:
			a.Namespace = true
		case strings.HasPrefix(one, "unix:path:"), strings.HasPrefix(one, "unix:sha256:"):
			return a, NewFieldError(at, "%s: a connection shows its user, not its program, and programs of one user can act as each other: run this one as a user of its own and name that, unix:uid:N", Abbreviate(one))
		case !isUID:
			return a, NewFieldError(at, "%s: want unix:uid:N, %s or %s; a connection shows its user, and nothing else of the process behind it", Abbreviate(one), applicationsAnyone, applicationsNamespace)
		default:
			if err := CheckNumber(value); err != nil {
				return a, NewFieldError(at, "%s: %v", Abbreviate(one), err)
			}
			uid, _ := strconv.ParseUint(value, 10, 32) // CheckNumber did
			a.UIDs = append(a.UIDs, uint32(uid))
		}
	}
	if a.Anyone && len(list) > 1 {
		return Applications{}, NewFieldError(field, "%s lets everybody in: leave the others out", applicationsAnyone)
	}
	return a, nil
}
