// Package awsclient opens clients of AWS's services as every part of Signet does: with
// credentials of the environment alone, answers that are bounded, and endpoints that are
// used as they are given. It must not know which service is asked, or what for.
//
// Main names in reading order: CheckRegion, CheckRole, CheckEndpoint, Load, Bounded, AsGiven. Safe for
// concurrent use.
package awsclient

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

var (
	regionRE = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)
	roleRE   = regexp.MustCompile(`^arn:[a-z-]+:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}$`)
)

// CheckRegion accepts the name of a region.
func CheckRegion(s string) error {
	if !regionRE.MatchString(s) {
		return fmt.Errorf("%q is not the name of a region, such as eu-west-1", s)
	}
	return nil
}

// CheckRole accepts the ARN of a role.
func CheckRole(s string) error {
	if !roleRE.MatchString(s) {
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
	return config.LoadDefaultConfig(ctx,
		config.WithRegion(region), config.WithSharedConfigFiles([]string{}), config.WithSharedCredentialsFiles([]string{}),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(each)),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} })) // whoever asks tries again
}

// Once has the client of a configuration keep no connection for a next question.
func Once(c aws.Config) aws.Config {
	if b, ok := c.HTTPClient.(*awshttp.BuildableClient); ok {
		c.HTTPClient = b.WithTransportOptions(func(t *http.Transport) { t.DisableKeepAlives = true })
	}
	return c
}

// Bounded has no more of an answer read than so many bytes.
func Bounded(most int64) func(*middleware.Stack) error {
	return func(s *middleware.Stack) error {
		return s.Deserialize.Add(middleware.DeserializeMiddlewareFunc("Bounded", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			out, metadata, err := next.HandleDeserialize(ctx, in)
			if resp, ok := out.RawResponse.(*smithyhttp.Response); ok {
				resp.Body = body{io.LimitReader(resp.Body, most), resp.Body}
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
