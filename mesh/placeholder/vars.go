package placeholder

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"signet.example/internal/manifest"
)

// assignment is a line of a file that a shell could read.
var assignment = regexp.MustCompile(`^(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)=(.*)$`)

// maxVars bounds a file of values.
const maxVars = 1 << 20

// ParseVars reads a file of values: NAME=value lines as a shell has them, or a YAML
// mapping of names to texts.
func ParseVars(file string, content []byte) (map[string]string, error) {
	if len(content) > maxVars {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", file, len(content), maxVars)
	}
	values, lines := assignments(string(content))
	if !lines {
		values = map[string]string{}
		read, err := manifest.ReadSettings(file, content, &values)
		if err == nil {
			err = read.Check(nil)
		}
		if err != nil {
			return nil, fmt.Errorf("neither NAME=value lines nor a YAML mapping: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := CheckName(name); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if err := CheckValue(values[name]); err != nil {
			return nil, fmt.Errorf("%s: the value of %s %w", file, name, err)
		}
	}
	return values, nil
}

// assignments reports whether every line is one, except empty ones and comments.
func assignments(text string) (map[string]string, bool) {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		m := assignment.FindStringSubmatch(line)
		if m == nil {
			return nil, false
		}
		values[m[1]] = unquoted(m[2])
	}
	return values, true
}

// unquoted takes one pair of quotes off; nothing in them is expanded.
func unquoted(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}
