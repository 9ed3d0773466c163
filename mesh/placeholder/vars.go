package placeholder

import (
	"encoding/json"
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

// ParseVars reads a file of values: NAME=value lines as a shell has them, a YAML mapping of
// names to texts, or a stack's parameters as `aws cloudformation` has them in JSON.
func ParseVars(file string, content []byte) (map[string]string, error) {
	if len(content) > maxVars {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", file, len(content), maxVars)
	}
	values, known := assignments(string(content))
	if !known {
		values, known = parameters(content)
	}
	if !known {
		values = map[string]string{}
		read, err := manifest.ReadSettings(file, content, &values)
		if err == nil {
			err = read.Check(nil)
		}
		if err != nil {
			return nil, fmt.Errorf("%s has neither NAME=value lines nor a YAML mapping, nor parameters as `aws cloudformation` has them: %w", file, err)
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

// parameters reports whether a text is the list that create-stack and deploy take by
// --parameters file://…, and describe-stacks answers.
func parameters(content []byte) (map[string]string, bool) {
	var list []struct {
		Key   string  `json:"ParameterKey"`
		Value *string `json:"ParameterValue"` // none where the previous one is to be used
	}
	if err := json.Unmarshal(content, &list); err != nil || len(list) == 0 {
		return nil, false
	}
	values := map[string]string{}
	for _, p := range list {
		if p.Key == "" {
			return nil, false
		}
		if p.Value != nil {
			values[p.Key] = *p.Value
		}
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
