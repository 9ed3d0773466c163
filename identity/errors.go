package identity

import (
	"errors"
	"fmt"
)

// FieldError is what a spec's Build returns for each field that is at fault, joined
// to one error (FieldErrors). Path
// names the field in the manifest, such as "spec.selectors[1]"; whoever holds
// the manifest can add file and line to it.
type FieldError struct {
	Path string
	Msg  string
}

// Error returns "path: message".
func (e *FieldError) Error() string { return e.Path + ": " + e.Msg }

// FieldErrors lists the faults that a Build returned; one that is not a field's is
// the whole spec's.
func FieldErrors(err error) []*FieldError {
	if err == nil {
		return nil
	}
	if all, ok := err.(interface{ Unwrap() []error }); ok { // what errors.Join made, and nothing below it
		var list []*FieldError
		for _, e := range all.Unwrap() {
			list = append(list, FieldErrors(e)...)
		}
		return list
	}
	if e, ok := errors.AsType[*FieldError](err); ok {
		return []*FieldError{e}
	}
	return []*FieldError{{Path: "spec", Msg: err.Error()}}
}

// NewFieldError is a FieldError of a formatted message.
func NewFieldError(path, format string, args ...any) *FieldError {
	return &FieldError{Path: path, Msg: fmt.Sprintf(format, args...)}
}
