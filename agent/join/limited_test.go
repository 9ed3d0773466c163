package join

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/agent/svids"
)

func TestAnAgentThatIsLimitedComesBackWhenItIsToldTo(t *testing.T) {
	t.Parallel()
	limits := func(after time.Duration) error {
		s, err := status.New(codes.ResourceExhausted, "too many requests").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Errorf("attest: %w", s.Err())
	}
	synctest.Test(t, func(t *testing.T) {
		e := &Enrolment{config: Config{Log: slog.New(slog.DiscardHandler)}}
		begun, attempts := time.Now(), 0
		_, err := e.untilAnswered(t.Context(), func() (*svids.SVID, error) {
			if attempts++; attempts <= 8 {
				return nil, limits(300 * time.Millisecond)
			}
			return nil, nil
		})
		if took := time.Since(begun); err != nil || took != 8*300*time.Millisecond {
			t.Errorf("let in after %s: %v", took, err)
		}
	})
	for name, c := range map[string]struct {
		err  error
		want time.Duration
		told bool
	}{
		"it says":                  {limits(700 * time.Millisecond), 700 * time.Millisecond, true},
		"it says never":            {limits(time.Hour), svids.Asking.Most, true},
		"it says at once":          {limits(0), svids.Asking.First, true},
		"it says before":           {limits(-time.Hour), svids.Asking.First, true},
		"it does not":              {status.Error(codes.ResourceExhausted, "too many requests"), 0, false},
		"it is not there":          {status.Error(codes.Unavailable, "no route"), 0, false},
		"nothing of gRPC is in it": {errors.New("broken"), 0, false},
	} {
		if got, told := svids.Asking.Asked(c.err); got != c.want || told != c.told {
			t.Errorf("%s: %s %v, want %s %v", name, got, told, c.want, c.told)
		}
	}
}
