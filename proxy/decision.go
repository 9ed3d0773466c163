package proxy

import "strings"

// ParseDecisionID returns the one form in which decision ids are kept and
// compared: 32 hexadecimal digits. Envoy writes those of its own denials as UUIDs,
// with hyphens. ok is false for what is not an id.
func ParseDecisionID(s string) (id string, ok bool) {
	id = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), "-", "")
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return "", false
	}
	return id, true
}
