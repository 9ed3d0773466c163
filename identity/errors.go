package identity

import "fmt"

// FieldError is what a spec's Build returns when a field is at fault. Path
// names the field in the manifest, such as "spec.selectors[1]"; whoever holds
// the manifest can add file and line to it.
type FieldError struct {
	Path string
	Msg  string
}

// Error returns "path: message".
func (e *FieldError) Error() string { return e.Path + ": " + e.Msg }

func fieldError(path, format string, args ...any) *FieldError {
	return &FieldError{Path: path, Msg: fmt.Sprintf(format, args...)}
}
