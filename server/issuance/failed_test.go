package issuance

import (
	"context"
	"errors"
	"strings"
	"testing"

	"signet.example/api"
)

// What an operator is told of issuance: a fault of a request is none of it.
func TestThatNothingIsIssuedIsKnownUntilSomethingIs(t *testing.T) {
	w, err := NewWitness(t.Context(), nil, &gatedMarks{}, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	gone, end := context.WithCancel(t.Context())
	end()
	issued, invalid, failed := &api.SignResult{Chain: [][]byte{{1}}}, &api.SignResult{Error: "no key", Invalid: true}, &api.SignResult{Error: "the disk is full"}
	for _, step := range []struct {
		what    string
		ctx     context.Context //nolint:containedctx // of the step
		results []*api.SignResult
		err     error
		want    string
	}{
		{"a bad request", t.Context(), []*api.SignResult{invalid}, nil, ""},
		{"whoever asked has gone", gone, nil, context.Canceled, ""},
		{"the log", t.Context(), []*api.SignResult{invalid, failed}, nil, "the disk is full"},
		{"a bad request after that", t.Context(), []*api.SignResult{invalid}, nil, "the disk is full"},
		{"one of two", t.Context(), []*api.SignResult{failed, issued}, nil, ""},
		{"the store", t.Context(), []*api.SignResult{issued}, errors.New("the store is full"), "the store is full"},
		{"issued", t.Context(), []*api.SignResult{issued}, nil, ""},
	} {
		w.went(step.ctx, step.results, step.err)
		if at, err := w.Failed(); (err == nil) != (step.want == "") || err != nil && (!strings.Contains(err.Error(), step.want) || at.IsZero()) {
			t.Errorf("%s: %v at %s, want %q", step.what, err, at, step.want)
		}
	}
}
