package cloudmap

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	awsretry "github.com/aws/aws-sdk-go-v2/aws/retry"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"signet.example/internal/retry"
)

var throttles = awsretry.IsErrorThrottles(awsretry.DefaultThrottles)

// limited makes a retry.LimitedError of an answer by which a service limits us, and leaves any
// other error as it is.
func limited(err error) error {
	resp, _ := errors.AsType[*smithyhttp.ResponseError](err)
	if !throttles.IsErrorThrottle(err).Bool() && (resp == nil || resp.HTTPStatusCode() != http.StatusTooManyRequests) {
		return err
	}
	e := &retry.LimitedError{Err: err}
	if resp != nil && resp.Response != nil {
		e.After = after(resp.Response.Header)
	}
	return e
}

// after is how long an answer says to wait, 0 where it does not say it in seconds: AWS itself
// says nothing, and what stands before it does so.
func after(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
