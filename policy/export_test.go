package policy

import (
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// HeadersOf are input.request.headers and header_lines of the document that a policy sees.
func HeadersOf(in Input) (headers, lines map[string][]string) {
	request := in.value(false).(ast.Object).Get(keyRequest).Value.(ast.Object)
	for key, into := range map[*ast.Term]*map[string][]string{keyHeaders: &headers, keyHeaderLines: &lines} {
		if err := ast.As(request.Get(key).Value, into); err != nil {
			panic(err)
		}
	}
	return headers, lines
}

// SlowAtOnce is how many slow evaluations go on now.
func SlowAtOnce() int { return slowLanes().Busy() }

// HoldLane keeps a destination's lane until what it returns is called.
func HoldLane(destination string) (leave func()) {
	leaveLane := slowLanes().Enter(destination, time.Second)
	return func() { leaveLane(0) }
}
