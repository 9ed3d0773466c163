package cloudmap

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// mostInstances is as many as the API gives at most.
const mostInstances = 1000

// Where is which Cloud Map is asked, and as whom.
type Where struct {
	// Region turns it on: nothing is asked without one.
	Region string `yaml:"region" json:"region"`
	// Role, by its ARN, is assumed with the server's own credentials. Empty asks as these.
	Role string `yaml:"role" json:"role"`
	// Endpoint in place of the region's own, as of an interface endpoint of a VPC.
	Endpoint string `yaml:"endpoint" json:"endpoint"`
	// Every is how often it is asked whether anything changed. Default 5s.
	Every time.Duration `yaml:"every" json:"every"`
}

const (
	defaultEvery = 5 * time.Second
	minEvery     = time.Second
)

// On reports whether Cloud Map is asked.
func (w Where) On() bool { return w.Region != "" }

// Complete has the defaults.
func (w Where) Complete() Where {
	if w.Every == 0 {
		w.Every = defaultEvery
	}
	return w
}

var (
	regionRE = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)
	roleRE   = regexp.MustCompile(`^arn:[a-z-]+:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}$`)
)

// Validate returns the key that is wrong, and why; "" for none.
func (w Where) Validate() (key, why string) {
	switch {
	case w.Region == "" && (w.Role != "" || w.Endpoint != ""):
		return "region", "missing: name the region whose Cloud Map is asked, such as eu-west-1"
	case w.Region != "" && !regionRE.MatchString(w.Region):
		return "region", fmt.Sprintf("%q is not the name of a region, such as eu-west-1", w.Region)
	case w.Role != "" && !roleRE.MatchString(w.Role):
		return "role", fmt.Sprintf("%q is not the ARN of a role", w.Role)
	case w.Every != 0 && w.Every < minEvery:
		return "every", fmt.Sprintf("%s is less than %s", w.Every, minEvery)
	}
	if w.Endpoint == "" {
		return "", ""
	}
	u, err := url.Parse(w.Endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "endpoint", fmt.Sprintf("%q is not the URL of a host", w.Endpoint)
	}
	a, _ := netip.ParseAddr(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || !a.IsLoopback()) {
		return "endpoint", "it must be https: what is asked has a session token, and the answer says whom proxies call"
	}
	return "", ""
}

// AWS is Cloud Map itself.
type AWS struct{ client *servicediscovery.Client }

// Open makes the client; nothing is asked before the first question. Credentials come from
// the environment: keys, a web identity, a container's role, or an instance's. Files of
// somebody's home folder are not read, for they name programs to be run.
func (w Where) Open(ctx context.Context) (*AWS, error) {
	conf, err := config.LoadDefaultConfig(ctx,
		config.WithRegion(w.Region), config.WithSharedConfigFiles([]string{}), config.WithSharedCredentialsFiles([]string{}),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(each)),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} })) // Services tries again
	if err != nil {
		return nil, fmt.Errorf("cloud_map: %w", err)
	}
	if w.Role != "" {
		conf.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(conf), w.Role, func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "signet" }))
	}
	return &AWS{servicediscovery.NewFromConfig(conf, func(o *servicediscovery.Options) {
		o.APIOptions = append(o.APIOptions, bounded)
		if w.Endpoint != "" {
			o.BaseEndpoint = &w.Endpoint
			o.APIOptions = append(o.APIOptions, asGiven)
		}
	})}, nil
}

// mostAnswer is more than a thousand instances have with thirty attributes each.
const mostAnswer = 64 << 20

// bounded has no more of an answer read than that.
func bounded(s *middleware.Stack) error {
	return s.Deserialize.Add(middleware.DeserializeMiddlewareFunc("Bounded", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		if resp, ok := out.RawResponse.(*smithyhttp.Response); ok {
			resp.Body = body{io.LimitReader(resp.Body, mostAnswer), resp.Body}
		}
		return out, metadata, err
	}), middleware.After)
}

// body is one whose reader ends early.
type body struct {
	io.Reader
	io.Closer
}

// asGiven has no prefix put before the host of an endpoint.
func asGiven(s *middleware.Stack) error {
	return s.Initialize.Add(middleware.InitializeMiddlewareFunc("AsGiven", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		return next.HandleInitialize(smithyhttp.DisableEndpointHostPrefix(ctx, true), in)
	}), middleware.Before)
}

// Discover implements Asker. An instance that is unhealthy is not called unless all are:
// then what says so is more likely to be wrong than all of them.
func (a *AWS) Discover(ctx context.Context, q Question) ([]Instance, int64, error) {
	out, err := a.client.DiscoverInstances(ctx, &servicediscovery.DiscoverInstancesInput{
		NamespaceName: &q.Namespace, ServiceName: &q.Service, QueryParameters: q.Attributes,
		HealthStatus: types.HealthStatusFilterHealthyOrElseAll, MaxResults: aws.Int32(mostInstances),
	})
	if err != nil {
		return nil, 0, err
	}
	var list []Instance
	for _, in := range out.Instances[:min(len(out.Instances), mostInstances)] {
		if n, ok := callable(in.Attributes, q.Preference); ok {
			list = append(list, n)
		}
	}
	return listed(list), aws.ToInt64(out.InstancesRevision), nil
}

// Revision implements Asker.
func (a *AWS) Revision(ctx context.Context, q Question) (int64, error) {
	out, err := a.client.DiscoverInstancesRevision(ctx, &servicediscovery.DiscoverInstancesRevisionInput{NamespaceName: &q.Namespace, ServiceName: &q.Service})
	if err != nil {
		return 0, err
	}
	return aws.ToInt64(out.InstancesRevision), nil
}
