package cloudmap

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"signet.example/internal/awsclient"
)

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

// Validate returns the key that is wrong, and why; "" for none.
func (w Where) Validate() (key, why string) {
	switch {
	case w.Region == "" && (w.Role != "" || w.Endpoint != ""):
		return "region", "missing: name the region whose Cloud Map is asked, such as eu-west-1"
	case w.Region != "" && awsclient.CheckRegion(w.Region) != nil:
		return "region", awsclient.CheckRegion(w.Region).Error()
	case w.Role != "" && awsclient.CheckRole(w.Role) != nil:
		return "role", awsclient.CheckRole(w.Role).Error()
	case w.Every != 0 && w.Every < minEvery:
		return "every", fmt.Sprintf("%s is less than %s", w.Every, minEvery)
	}
	if w.Endpoint == "" {
		return "", ""
	}
	if err := awsclient.CheckEndpoint(w.Endpoint); err != nil {
		return "endpoint", err.Error()
	}
	return "", ""
}

// AWS is Cloud Map itself.
type AWS struct{ client *servicediscovery.Client }

// Open makes the client; nothing is asked before the first question.
func (w Where) Open(ctx context.Context) (*AWS, error) {
	conf, err := awsclient.Load(ctx, w.Region, each) // Services tries again
	if err != nil {
		return nil, fmt.Errorf("cloud_map: %w", err)
	}
	if w.Role != "" {
		conf.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(conf, few), w.Role, func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "signet" }))
	}
	return &AWS{servicediscovery.NewFromConfig(conf, func(o *servicediscovery.Options) {
		if w.Endpoint != "" {
			o.BaseEndpoint = &w.Endpoint
			o.APIOptions = append(o.APIOptions, awsclient.AsGiven)
		}
	})}, nil
}

// few has an answer that is no list bounded.
func few(o *sts.Options) {
	o.APIOptions = append(o.APIOptions, awsclient.Bounded(awsclient.MostOfFew))
}

// Discover implements Asker. An instance that is unhealthy is not called unless all are:
// then what says so is more likely to be wrong than all of them.
func (a *AWS) Discover(ctx context.Context, q Question) ([]Instance, int64, error) {
	out, err := a.client.DiscoverInstances(ctx, &servicediscovery.DiscoverInstancesInput{
		NamespaceName: &q.Namespace, ServiceName: &q.Service, QueryParameters: q.Attributes,
		HealthStatus: types.HealthStatusFilterHealthyOrElseAll, MaxResults: aws.Int32(mostInstances),
	}, func(o *servicediscovery.Options) {
		o.APIOptions = append(o.APIOptions, awsclient.Reduced(mostAnswer, reduce))
	})
	if err != nil {
		return nil, 0, limited(err)
	}
	var list []Instance
	for _, in := range out.Instances {
		if n, ok := callable(in.Attributes, q.Preference); ok {
			list = append(list, n)
		}
	}
	return listed(list), aws.ToInt64(out.InstancesRevision), nil
}

// Revision implements Asker.
func (a *AWS) Revision(ctx context.Context, q Question) (int64, error) {
	out, err := a.client.DiscoverInstancesRevision(ctx, &servicediscovery.DiscoverInstancesRevisionInput{NamespaceName: &q.Namespace, ServiceName: &q.Service},
		func(o *servicediscovery.Options) {
			o.APIOptions = append(o.APIOptions, awsclient.Bounded(awsclient.MostOfFew))
		})
	if err != nil {
		return 0, limited(err)
	}
	return aws.ToInt64(out.InstancesRevision), nil
}
