package envoy

import (
	"testing"
	"time"
)

func TestNoApplicationIsWaitedForWithoutEnd(t *testing.T) {
	t.Parallel()
	long := time.Now().Add(-mostEarly)
	o := &StopOrder{}
	o.asked.Store(&long)
	if o.Early() {
		t.Error("early for ever, where nobody ends the application")
	}
}
