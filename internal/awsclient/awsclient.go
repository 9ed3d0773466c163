// Package awsclient opens clients of AWS's services as every part of Signet does: with
// credentials of the environment alone, answers that are bounded, and endpoints that are
// used as they are given. It must not know which service is asked, or what for.
//
// Main names in reading order: CheckRegion, Region, CheckAccount, CheckRole,
// CheckRoles, CheckEndpoint, Load, Bounded, Reduced, AsGiven. Safe for
// concurrent use.
package awsclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Each is made when it is first asked: most processes ask neither, and all of them start.
var (
	regionForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`) })
	roleForm   = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^arn:[a-z-]+:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}$`)
	})
)

// CheckRegion accepts the name of a region.
func CheckRegion(s string) error {
	if !regionForm().MatchString(s) {
		return fmt.Errorf("%q is not the name of a region, such as eu-west-1", s)
	}
	return nil
}

const (
	fromEnvironment = "environment"
	regionVariable  = "AWS_REGION"
)

// Region is the one that is configured, or that of the environment where it says so.
func Region(configured string) (string, error) {
	region := configured
	switch region {
	case "":
		return "", errors.New("missing: the region whose STS is asked, such as eu-west-1, or " + fromEnvironment + " for what " + regionVariable + " says")
	case fromEnvironment:
		if region = os.Getenv(regionVariable); region == "" {
			return "", errors.New(regionVariable + " is not in the environment: ECS sets it; elsewhere name the region here")
		}
	}
	return region, CheckRegion(region)
}

var accountRE = regexp.MustCompile(`^[0-9]{12}$`)

// CheckAccount accepts the number of an account.
func CheckAccount(s string) error {
	if !accountRE.MatchString(s) {
		return fmt.Errorf("%q: want the twelve digits of an account of AWS, in quotes", s)
	}
	return nil
}

const maxRoles = 256

// CheckRoles accepts the ARNs of roles of an account, at least one. An error begins with the key.
func CheckRoles(account string, roles []string) error {
	if n := len(roles); n == 0 || n > maxRoles {
		return fmt.Errorf("roles: %d of them: want 1 to %d, by ARN: whose tasks may join", n, maxRoles)
	}
	for i, r := range roles {
		if err := CheckRole(r); err != nil {
			return fmt.Errorf("roles[%d]: %w", i, err)
		}
		if !strings.Contains(r, ":iam::"+account+":role/") {
			return fmt.Errorf("roles[%d]: %s is not a role of account %s", i, r, account)
		}
	}
	return nil
}

// CheckRole accepts the ARN of a role.
func CheckRole(s string) error {
	if !roleForm().MatchString(s) {
		return fmt.Errorf("%q is not the ARN of a role, such as arn:aws:iam::123456789012:role/web", s)
	}
	return nil
}

// CheckEndpoint accepts the URL of a host by which a service is reached: requests have a
// session token, and answers are believed.
func CheckEndpoint(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is not the URL of a host", s)
	}
	a, _ := netip.ParseAddr(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || !a.IsLoopback()) {
		return fmt.Errorf("%q: it must be https: what is asked has a session token, and the answer is believed", s)
	}
	return nil
}

// Load reads the configuration of a client that asks once, for so long; nothing is asked
// before the first question. Credentials come from the environment: keys, a web identity, a
// container's role, or an instance's. Files of somebody's home folder are not read, for they
// name programs to be run.
func Load(ctx context.Context, region string, each time.Duration) (aws.Config, error) {
	c, err := config.LoadDefaultConfig(ctx,
		config.WithRegion(region), config.WithSharedConfigFiles([]string{}), config.WithSharedCredentialsFiles([]string{}),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(each)),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} })) // whoever asks tries again
	if b, ok := c.HTTPClient.(*awshttp.BuildableClient); ok {
		c.HTTPClient = clientOf(b.GetTransport(), each)
	}
	return c, err
}

func clientOf(t *http.Transport, each time.Duration) *http.Client {
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // a question has a session token
	return &http.Client{Transport: whole{t}, Timeout: each, CheckRedirect: stay}
}

// Once has the client of a configuration keep no connection for a next question.
func Once(c aws.Config) aws.Config {
	if h, ok := c.HTTPClient.(*http.Client); ok {
		if t, ok := h.Transport.(whole); ok {
			once := t.Clone()
			once.DisableKeepAlives = true
			c.HTTPClient = clientOf(once, h.Timeout)
		}
	}
	return c
}

// whole sends the body of a question as its own. The SDK closes that of a request as soon as an
// answer begins, at times before the transport has looked for its end: it takes that for an error,
// and ends the connection in the middle of the answer (smithy-go 1.28.9, ClientHandler).
type whole struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (t whole) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return t.Transport.RoundTrip(r)
	}
	b, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	own := *r
	own.Body = io.NopCloser(bytes.NewReader(b))
	return t.Transport.RoundTrip(&own)
}

// Bounded has no more of an answer read than so many bytes.
func Bounded(most int64) func(*middleware.Stack) error {
	return answered("Bounded", func(resp *smithyhttp.Response) error {
		resp.Body = body{io.LimitReader(resp.Body, most), resp.Body}
		return nil
	})
}

// Reduced has an answer read as it comes, of at most so many bytes: what reduce returns is the
// answer that the client sees. An error of the service's is bounded.
func Reduced(most int64, reduce func(io.Reader) ([]byte, error)) func(*middleware.Stack) error {
	return answered("Reduced", func(resp *smithyhttp.Response) error {
		if resp.StatusCode < 200 || resp.StatusCode > 299 {
			resp.Body = body{io.LimitReader(resp.Body, MostOfFew), resp.Body}
			return nil
		}
		left, err := reduce(io.LimitReader(resp.Body, most))
		resp.Body = body{bytes.NewReader(left), resp.Body}
		return err
	})
}

// MostOfFew is more than any answer has that is not a list.
const MostOfFew = 64 << 10

// answered has each answer seen before the client reads it.
func answered(name string, see func(*smithyhttp.Response) error) func(*middleware.Stack) error {
	return func(s *middleware.Stack) error {
		return s.Deserialize.Add(middleware.DeserializeMiddlewareFunc(name, func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			out, metadata, err := next.HandleDeserialize(ctx, in)
			if resp, ok := out.RawResponse.(*smithyhttp.Response); ok && err == nil {
				err = see(resp)
			}
			return out, metadata, err
		}), middleware.After)
	}
}

// body is one whose reader ends early.
type body struct {
	io.Reader
	io.Closer
}

// AsGiven has no prefix put before the host of an endpoint.
func AsGiven(s *middleware.Stack) error {
	return s.Initialize.Add(middleware.InitializeMiddlewareFunc("AsGiven", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		return next.HandleInitialize(smithyhttp.DisableEndpointHostPrefix(ctx, true), in)
	}), middleware.Before)
}
