// Package awscaller attests a task of AWS by a question of its role's to STS, who it is
// (sts:GetCallerIdentity), which the task signs and the server asks. It owns both ends: Host signs
// a question that names the connection on which it is shown, Verifier asks it and says what the
// answer shows. It must not know where it is kept what was used (attestation/platform), what a
// challenge is made of, nor which group a task is in.
//
// Main types in reading order: Host, Evidence, Config, Verifier. Safe for concurrent use.
package awscaller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"signet.example/internal/awsclient"
)

// Name is the method's, and the type of its selectors.
const Name = "aws_caller_identity"

// asked is how long AWS has for an answer, to either end: the credentials of the role, or STS.
const asked = 4 * time.Second

// Host is the host's end, as configured.
type Host struct {
	// Region whose STS the server is to ask, such as eu-west-1; "environment" takes it from
	// AWS_REGION, which ECS sets in each task.
	Region string `yaml:"region"`
}

// Evidence is a signed question. Everything else of it is the same for all: the server writes it
// anew, and takes no header, address or text of it from whoever shows it.
type Evidence struct {
	Region, AccessKeyID string
	Date                string // as in X-Amz-Date
	Signature           string // SHA-256 in hex
	SessionToken        string
	// Task is the ARN of the task by its own word, "" where it has none: it proves nothing.
	Task string
}

// Try reports what is wrong with the configuration, beginning with the key. It asks nobody.
func (h Host) Try() error {
	region, err := awsclient.Region(h.Region)
	if err == nil {
		_, err = hostOf(region)
	}
	if err != nil {
		return fmt.Errorf("region: %w", err)
	}
	return nil
}

// Prove signs a question about a challenge of a trust domain. The secret of the credentials stays
// on the host, and STS is not asked.
func (h Host) Prove(ctx context.Context, trustDomain string, challenge []byte) (Evidence, error) {
	if err := h.Try(); err != nil {
		return Evidence{}, err
	}
	region, err := awsclient.Region(h.Region)
	if err != nil {
		return Evidence{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, asked)
	defer cancel()
	conf, err := awsclient.Load(ctx, region, asked)
	if err != nil {
		return Evidence{}, err
	}
	by, err := awsclient.Once(conf).Credentials.Retrieve(ctx)
	if err != nil {
		return Evidence{}, fmt.Errorf("credentials of the task's role: %w", err)
	}
	now := time.Now().UTC()
	e := Evidence{Region: region, AccessKeyID: by.AccessKeyID, Date: now.Format(dateForm), SessionToken: by.SessionToken}
	req, err := e.question(ctx, "", audience(trustDomain, challenge))
	if err != nil {
		return Evidence{}, err
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, by, req, hex.EncodeToString(sum[:]), service, region, now); err != nil {
		return Evidence{}, fmt.Errorf("sign the question: %w", err)
	}
	signed := req.Header.Get("Authorization")
	_, e.Signature, _ = strings.Cut(signed, "Signature=")
	if err := e.check(); err != nil {
		return Evidence{}, fmt.Errorf("credentials of the task's role: %w", err)
	}
	if e.authorization() != signed {
		return Evidence{}, errors.New("internal error: the signature is of another question than the server asks")
	}
	return e, nil
}

const (
	service  = "sts"
	dateForm = "20060102T150405Z"
	body     = "Action=GetCallerIdentity&Version=2011-06-15"
	form     = "application/x-www-form-urlencoded; charset=utf-8"
	// audienceHeader is signed with the rest, so that a question is of one connection. STS passes
	// over it.
	audienceHeader = "X-Signet-Audience"
	signedHeaders  = "content-length;content-type;host;x-amz-date;x-amz-security-token;x-signet-audience"
)

// question is what is signed, and what is sent, to the region's own address or another one.
func (e Evidence) question(ctx context.Context, endpoint, audience string) (*http.Request, error) {
	host, err := hostOf(e.Region)
	if err != nil {
		return nil, err
	}
	if endpoint == "" {
		endpoint = "https://" + host
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(endpoint, "/")+"/", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Host = host
	req.Header.Set("Content-Type", form)
	req.Header.Set("X-Amz-Date", e.Date)
	req.Header.Set("X-Amz-Security-Token", e.SessionToken)
	req.Header.Set(audienceHeader, audience)
	return req, nil
}

// authorization is the header of that name (SigV4).
func (e Evidence) authorization() string {
	return fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s/%s/%s/aws4_request, SignedHeaders=%s, Signature=%s", e.AccessKeyID, e.Date[:8], e.Region, service, signedHeaders, e.Signature)
}

// hostOf is the host of a region's STS.
func hostOf(region string) (string, error) {
	if err := awsclient.CheckRegion(region); err != nil {
		return "", err
	}
	switch {
	case strings.Contains(region, "-iso"):
		return "", fmt.Errorf("%s: the address of STS in this partition is not known here", region)
	case strings.HasPrefix(region, "cn-"):
		return "sts." + region + ".amazonaws.com.cn", nil
	}
	return "sts." + region + ".amazonaws.com", nil
}

// audience is whom a question is for: one connection to a server of one trust domain. The
// challenge is a secret of the two ends, and AWS sees its hash.
func audience(trustDomain string, challenge []byte) string {
	sum := sha256.Sum256(challenge)
	return "signet:" + trustDomain + ":" + hex.EncodeToString(sum[:])
}
