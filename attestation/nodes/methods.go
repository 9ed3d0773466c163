package nodes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"signet.example/api"
	"signet.example/attestation/awscaller"
	"signet.example/attestation/awstask"
	"signet.example/attestation/jointoken"
	"signet.example/attestation/k8spsat"
	"signet.example/attestation/platform"
	"signet.example/attestation/x509pop"
)

// Config is the server's: which evidence it takes of hosts, beside join tokens.
type Config struct {
	// X509PoP has hosts join by a certificate of the operator's authority.
	X509PoP x509pop.Config `yaml:"x509pop" json:"x509pop"`
	// AWSTask has tasks join by a token that AWS signs for their role.
	AWSTask awstask.Config `yaml:"aws_task" json:"aws_task"`
	// AWSCaller has tasks join by a question of their role's to STS, which the server asks.
	AWSCaller awscaller.Config `yaml:"aws_caller_identity" json:"aws_caller_identity"`
	// K8sPSAT has pods join by a token that their cluster signs for them.
	K8sPSAT k8spsat.Config `yaml:"k8s_psat" json:"k8s_psat"`
}

// HostConfig is a host's: by what it joins, where it has no token.
type HostConfig struct {
	// X509PoP is a certificate of the operator's authority.
	X509PoP x509pop.Host `yaml:"x509pop"`
	// AWSTask is the role of AWS with which this task runs.
	AWSTask awstask.Host `yaml:"aws_task"`
	// AWSCaller is the same role, where the account gives no tokens.
	AWSCaller awscaller.Host `yaml:"aws_caller_identity"`
	// K8sPSAT is the projected token of this pod.
	K8sPSAT k8spsat.Host `yaml:"k8s_psat"`
	// Task is the ARN of this task, where it knows one: what contradicts its evidence is refused.
	Task string `yaml:"-"`
}

// Server is what the server's ends need of the server.
type Server struct {
	JoinTokens jointoken.Tokens
	Platforms  platform.Server
}

// methods are all of them. A method that is not here is refused by its name.
var methods = []method{
	{
		name: "join_token",
		attestor: func(_ Config, s Server) (attestor, error) {
			return byToken{jointoken.Attestor{Tokens: s.JoinTokens}}, nil
		},
	},
	{
		name: x509pop.Name, selectors: x509pop.Selectors,
		attestor: func(cfg Config, _ Server) (attestor, error) {
			v, err := cfg.X509PoP.Open()
			if v == nil || err != nil {
				return nil, err
			}
			return byX509PoP{v}, nil
		},
		given: func(cfg HostConfig) bool { return cfg.X509PoP != x509pop.Host{} },
		evidence: func(cfg HostConfig) (Evidence, error) {
			return proveX509(cfg.X509PoP), cfg.X509PoP.Try()
		},
		current: func(cfg HostConfig, _ string, now time.Time) error { return cfg.X509PoP.Current(now) },
	},
	{
		name: awstask.Name, selectors: awstask.Selectors, ends: true, principal: awstask.Principal,
		takes:   func(cfg Config, selectors []string) error { return cfg.AWSTask.Takes(selectors) },
		issuers: func(cfg Config) ([]platform.Issuer, error) { return cfg.AWSTask.Issuers(), nil },
		quota: func(cfg Config) Quota {
			return Quota{Most: cfg.AWSTask.MostOfRole(), Key: "agents_per_role"}
		},
		attestor: func(cfg Config, s Server) (attestor, error) {
			v, err := cfg.AWSTask.Open(s.Platforms)
			if v == nil || err != nil {
				return nil, err
			}
			return byAWSTask{v}, nil
		},
		given:    func(cfg HostConfig) bool { return cfg.AWSTask != awstask.Host{} },
		evidence: func(cfg HostConfig) (Evidence, error) { return proveAWSTask(cfg.AWSTask, cfg.Task), cfg.AWSTask.Try() },
		current:  func(cfg HostConfig, _ string, _ time.Time) error { return cfg.AWSTask.Try() },
	},
	{
		name: awscaller.Name, selectors: awscaller.Selectors, ends: true, principal: awscaller.Principal,
		takes: func(cfg Config, selectors []string) error { return cfg.AWSCaller.Takes(selectors) },
		quota: func(cfg Config) Quota {
			return Quota{Most: cfg.AWSCaller.MostOfRole(), Key: "agents_per_role"}
		},
		attestor: func(cfg Config, s Server) (attestor, error) {
			v, err := cfg.AWSCaller.Open(s.Platforms)
			if v == nil || err != nil {
				return nil, err
			}
			return byAWSCaller{v}, nil
		},
		given: func(cfg HostConfig) bool { return cfg.AWSCaller != awscaller.Host{} },
		evidence: func(cfg HostConfig) (Evidence, error) {
			return proveAWSCaller(cfg.AWSCaller, cfg.Task), cfg.AWSCaller.Try()
		},
		current: func(cfg HostConfig, _ string, _ time.Time) error { return cfg.AWSCaller.Try() },
	},
	{
		name: k8spsat.Name, selectors: k8spsat.Selectors, ends: true, principal: k8spsat.Principal,
		takes:   func(cfg Config, selectors []string) error { return cfg.K8sPSAT.Takes(selectors) },
		issuers: func(cfg Config) ([]platform.Issuer, error) { return cfg.K8sPSAT.Issuers() },
		quota: func(cfg Config) Quota {
			return Quota{Most: cfg.K8sPSAT.Most(), Key: "agents_per_service_account"}
		},
		attestor: func(cfg Config, s Server) (attestor, error) {
			v, err := cfg.K8sPSAT.Open(s.Platforms)
			if v == nil || err != nil {
				return nil, err
			}
			return byK8sPSAT{v}, nil
		},
		given:    func(cfg HostConfig) bool { return cfg.K8sPSAT != k8spsat.Host{} },
		evidence: func(cfg HostConfig) (Evidence, error) { return proveK8sPSAT(cfg.K8sPSAT), cfg.K8sPSAT.Try() },
		written:  func(cfg HostConfig) []byte { return cfg.K8sPSAT.Written() },
		current:  func(cfg HostConfig, trustDomain string, _ time.Time) error { return cfg.K8sPSAT.Current(trustDomain) },
	},
}

// Token is what a host shows that was given a join token.
func Token(t jointoken.Token) Evidence {
	return func(_ context.Context, _ Channel, req *api.AttestRequest) error {
		req.Evidence = &api.AttestRequest_JoinToken{JoinToken: t.SecretText()}
		return nil
	}
}

// byToken: the group is the token's, and there are no selectors.
type byToken struct{ jointoken.Attestor }

func (b byToken) weigh(ctx context.Context, req *api.AttestRequest, now time.Time) (Weight, error) {
	hash, err := b.Good(ctx, req.GetJoinToken(), now)
	return Weight{Own: hash, Units: 1}, err
}

func (b byToken) attest(ctx context.Context, req *api.AttestRequest, _ Channel, now time.Time) (Node, error) {
	group, err := b.Use(ctx, req.GetJoinToken(), now)
	return Node{Group: group}, err
}

// proveX509 is what a host shows that has a certificate.
func proveX509(host x509pop.Host) Evidence {
	return func(_ context.Context, on Channel, req *api.AttestRequest) error {
		challenge, err := on.challenge(x509pop.Name)
		if err != nil {
			return err
		}
		e, err := host.Prove(challenge)
		if err != nil {
			return fmt.Errorf("join.%s.%w", x509pop.Name, err)
		}
		req.Evidence = &api.AttestRequest_X509Pop{X509Pop: &api.X509PoP{Chain: e.Chain, Signature: e.Signature}}
		return nil
	}
}

// byX509PoP: strangers can send such evidence, so that its bucket is their address's.
type byX509PoP struct{ *x509pop.Verifier }

func ofX509(req *api.AttestRequest) x509pop.Evidence {
	return x509pop.Evidence{Chain: req.GetX509Pop().GetChain(), Signature: req.GetX509Pop().GetSignature()}
}

func (b byX509PoP) weigh(_ context.Context, req *api.AttestRequest, _ time.Time) (Weight, error) {
	n, err := b.Units(ofX509(req))
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", ErrEvidence, x509pop.Name, err)
	}
	return Weight{Units: n}, err
}

func (b byX509PoP) attest(_ context.Context, req *api.AttestRequest, on Channel, now time.Time) (Node, error) {
	challenge, err := on.challenge(x509pop.Name)
	if err != nil {
		return Node{}, err
	}
	sels, key, err := b.Verify(ofX509(req), challenge, now)
	if err != nil {
		return Node{}, fmt.Errorf("%w: %s: %w", ErrEvidence, x509pop.Name, err)
	}
	return Node{Selectors: sels, Key: key}, nil
}

// proveAWSTask is what a task shows that runs with a role of AWS.
func proveAWSTask(host awstask.Host, task string) Evidence {
	return func(ctx context.Context, on Channel, req *api.AttestRequest) error {
		challenge, err := on.challenge(awstask.Name)
		if err != nil {
			return err
		}
		token, err := host.Prove(ctx, on.TrustDomain.Name(), challenge)
		if err != nil {
			return fmt.Errorf("join.%s: %w", awstask.Name, err)
		}
		req.Evidence = &api.AttestRequest_AwsTask{AwsTask: &api.AWSTask{Token: token, Task: task}}
		return nil
	}
}

// byAWSTask: strangers can send such evidence, so that its bucket is their address's.
type byAWSTask struct{ *awstask.Verifier }

func (byAWSTask) weigh(_ context.Context, req *api.AttestRequest, _ time.Time) (Weight, error) {
	return Weight{Units: 1}, refused(awstask.Name, platform.CheckToken(req.GetAwsTask().GetToken()))
}

func (b byAWSTask) attest(ctx context.Context, req *api.AttestRequest, on Channel, now time.Time) (Node, error) {
	challenge, err := on.challenge(awstask.Name)
	if err != nil {
		return Node{}, err
	}
	sels, err := b.Verify(ctx, awstask.Evidence{Token: req.GetAwsTask().GetToken(), Task: req.GetAwsTask().GetTask()}, on.TrustDomain.Name(), challenge, now)
	return Node{Selectors: sels}, refused(awstask.Name, err)
}

// proveAWSCaller is what a task shows whose account gives no tokens.
func proveAWSCaller(host awscaller.Host, task string) Evidence {
	return func(ctx context.Context, on Channel, req *api.AttestRequest) error {
		challenge, err := on.challenge(awscaller.Name)
		if err != nil {
			return err
		}
		e, err := host.Prove(ctx, on.TrustDomain.Name(), challenge)
		if err != nil {
			return fmt.Errorf("join.%s: %w", awscaller.Name, err)
		}
		req.Evidence = &api.AttestRequest_AwsCallerIdentity{AwsCallerIdentity: &api.AWSCallerIdentity{
			Region: e.Region, AccessKeyId: e.AccessKeyID, Date: e.Date, Signature: e.Signature, SessionToken: e.SessionToken, Task: task,
		}}
		return nil
	}
}

// byAWSCaller: strangers can send such evidence, of which only STS knows whether it is good.
type byAWSCaller struct{ *awscaller.Verifier }

func ofAWSCaller(req *api.AttestRequest) awscaller.Evidence {
	e := req.GetAwsCallerIdentity()
	return awscaller.Evidence{Region: e.GetRegion(), AccessKeyID: e.GetAccessKeyId(), Date: e.GetDate(), Signature: e.GetSignature(), SessionToken: e.GetSessionToken(), Task: e.GetTask()}
}

func (byAWSCaller) weigh(_ context.Context, req *api.AttestRequest, _ time.Time) (Weight, error) {
	return Weight{Units: 1, Waits: true}, refused(awscaller.Name, awscaller.Check(ofAWSCaller(req)))
}

func (b byAWSCaller) attest(ctx context.Context, req *api.AttestRequest, on Channel, now time.Time) (Node, error) {
	challenge, err := on.challenge(awscaller.Name)
	if err != nil {
		return Node{}, err
	}
	sels, err := b.Verify(ctx, ofAWSCaller(req), on.TrustDomain.Name(), challenge, now)
	return Node{Selectors: sels}, refused(awscaller.Name, err)
}

// proveK8sPSAT is what a pod shows.
func proveK8sPSAT(host k8spsat.Host) Evidence {
	return func(_ context.Context, on Channel, req *api.AttestRequest) error {
		token, err := host.Prove(on.TrustDomain.Name())
		if err != nil {
			return fmt.Errorf("join.%s.%w", k8spsat.Name, err)
		}
		req.Evidence = &api.AttestRequest_K8SPsat{K8SPsat: &api.K8SPSAT{Token: token}}
		return nil
	}
}

// byK8sPSAT: strangers can send such evidence, so that its bucket is their address's.
type byK8sPSAT struct{ *k8spsat.Verifier }

func (byK8sPSAT) weigh(_ context.Context, req *api.AttestRequest, _ time.Time) (Weight, error) {
	return Weight{Units: 1}, refused(k8spsat.Name, platform.CheckToken(req.GetK8SPsat().GetToken()))
}

func (b byK8sPSAT) attest(ctx context.Context, req *api.AttestRequest, on Channel, now time.Time) (Node, error) {
	sels, key, err := b.Verify(ctx, req.GetK8SPsat().GetToken(), on.TrustDomain.Name(), now)
	return Node{Selectors: sels, Key: key}, refused(k8spsat.Name, err)
}

// refused is the error of evidence for which a platform vouches: it is at fault, unless it may be
// good at another moment.
func refused(method string, err error) error {
	if err == nil || errors.Is(err, platform.ErrNotNow) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrEvidence, method, err)
}
