package cloudmap

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// A server whose clock is wrong by an hour asks once in vain, and then as AWS's clock has it.
func TestAClockThatIsWrongIsSetRightByTheFirstAnswer(t *testing.T) {
	theirs := func() time.Time { return time.Now().Add(time.Hour).UTC() }
	a := asking(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", theirs().Format(http.TimeFormat))
		at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if off := theirs().Sub(at).Abs(); err != nil || off > 5*time.Minute {
			w.Header().Set("X-Amzn-ErrorType", "InvalidSignatureException")
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(w, `{"__type": "InvalidSignatureException", "message": "Signature expired"}`)
			return
		}
		_, _ = fmt.Fprint(w, `{"Instances": [], "InstancesRevision": 1}`)
	})
	q := Question{Namespace: "shop.local", Service: "orders"}
	if _, err := a.Revision(t.Context(), q); err == nil {
		t.Error("the first question was signed by AWS's clock")
	}
	for n := range 3 {
		if _, _, err := a.Discover(t.Context(), q); err != nil {
			t.Errorf("question %d: %v", n+2, err)
		}
	}
}
