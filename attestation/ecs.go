package attestation

import (
	"errors"
	"fmt"
	"strings"

	"signet.example/identity"
)

// ECSForms are the selectors that a task of ECS has by the word of its platform.
var ECSForms = identity.Forms{
	"ecs:cluster": checkECSName, "ecs:family": checkECSName, "ecs:revision": identity.CheckNumber, "ecs:container": checkECSName, "ecs:label": checkECSLabel,
}

const (
	mostECSName  = 255 // ECS's own bound for clusters, families and containers
	mostECSLabel = 256 // bytes of a label's name, and of its value
)

func checkECSName(s string) error {
	if s == "" || len(s) > mostECSName || strings.IndexFunc(s, isNoECSLetter) >= 0 {
		return fmt.Errorf("want 1 to %d letters, digits, - and _", mostECSName)
	}
	return nil
}

func isNoECSLetter(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
}

// checkECSLabel: a name with a colon in it could be read as another label.
func checkECSLabel(s string) error {
	name, value, ok := strings.Cut(s, ":")
	switch {
	case !ok || name == "":
		return errors.New("want ecs:label:<name>:<value>; a label whose name has a colon is not a selector")
	case len(name) > mostECSLabel || len(value) > mostECSLabel || !identity.Printable(s):
		return fmt.Errorf("want a name and a value of %d bytes at most, of printable text", mostECSLabel)
	}
	return nil
}
