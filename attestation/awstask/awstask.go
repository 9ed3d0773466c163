// Package awstask attests a task of AWS by a token that AWS signs for the role with which
// it runs (sts:GetWebIdentityToken). It owns both ends: Host asks for a token that names the
// connection on which it is shown, Verifier says what it shows of the task. It must not know how
// signatures are verified and keys are fetched, where it is kept what was used
// (attestation/platform), what a challenge is made of, nor which group a task is in.
//
// Main types in reading order: Host, Config, Verifier. Safe for concurrent use.
package awstask

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"signet.example/internal/awsclient"
)

// Name is the method's, and the type of its selectors.
const Name = "aws_task"

const (
	// asked is how long STS has for its answer: a server waits five seconds for the first call
	// of a host that it does not know.
	asked      = 4 * time.Second
	lifetime   = 60 // seconds, the least that STS gives
	mostAnswer = 256 << 10
)

// Host is the host's end, as configured.
type Host struct {
	// Region whose STS is asked, such as eu-west-1; "environment" takes it from AWS_REGION,
	// which ECS sets in each task.
	Region string `yaml:"region"`
	// Endpoint in place of the region's own, as of an interface endpoint of a VPC.
	Endpoint string `yaml:"endpoint"`
}

// Try reports what is wrong with the configuration, beginning with the key. It asks nobody.
func (h Host) Try() error {
	if _, err := awsclient.Region(h.Region); err != nil {
		return fmt.Errorf("region: %w", err)
	}
	if h.Endpoint == "" {
		return nil
	}
	if err := awsclient.CheckEndpoint(h.Endpoint); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	return nil
}

// Asks is the name of the host that Prove asks, "" where the configuration is wrong.
func (h Host) Asks() string {
	if h.Endpoint != "" {
		u, err := url.Parse(h.Endpoint)
		if err != nil {
			return ""
		}
		return u.Hostname()
	}
	region, err := awsclient.Region(h.Region)
	if err != nil {
		return ""
	}
	host := "sts." + region + ".amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		host += ".cn"
	}
	return host
}

// Prove asks STS for a token about a challenge of a trust domain. The credentials that it
// asks with stay on the host; the token is good for a minute, on one connection.
func (h Host) Prove(ctx context.Context, trustDomain string, challenge []byte) (string, error) {
	if err := h.Try(); err != nil {
		return "", err
	}
	region, err := awsclient.Region(h.Region)
	if err != nil {
		return "", fmt.Errorf("region: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, asked)
	defer cancel()
	conf, err := awsclient.Load(ctx, region, asked)
	if err != nil {
		return "", err
	}
	client := sts.NewFromConfig(awsclient.Once(conf), func(o *sts.Options) {
		o.APIOptions = append(o.APIOptions, awsclient.Bounded(mostAnswer))
		if h.Endpoint != "" {
			o.BaseEndpoint = &h.Endpoint
		}
	})
	answer, err := client.GetWebIdentityToken(ctx, &sts.GetWebIdentityTokenInput{
		Audience: []string{audience(trustDomain, challenge)}, SigningAlgorithm: aws.String("ES384"), DurationSeconds: aws.Int32(lifetime),
	})
	if _, off := errors.AsType[*types.OutboundWebIdentityFederationDisabledException](err); off {
		return "", fmt.Errorf("STS gives no tokens for this account: `aws iam enable-outbound-web-identity-federation` turns that on: %w", err)
	}
	if err != nil {
		return "", fmt.Errorf("ask STS for a token; the task's role needs sts:GetWebIdentityToken: %w", err)
	}
	return aws.ToString(answer.WebIdentityToken), nil
}

// audience is whom a token is for: one connection to a server of one trust domain. IAM can
// confine a role to those of the trust domain (sts:IdentityTokenAudience). The challenge is
// a secret of the two ends, and AWS sees its hash.
func audience(trustDomain string, challenge []byte) string {
	sum := sha256.Sum256(challenge)
	return "signet:" + trustDomain + ":" + hex.EncodeToString(sum[:])
}
