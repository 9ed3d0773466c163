package parts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	jose "github.com/go-jose/go-jose/v4"
)

// STS is AWS as a task sees it: the credentials of its role, STS that gives tokens for who
// signs by these, and the issuer with the keys of the tokens.
type STS struct {
	t       testing.TB
	server  *httptest.Server
	Account string
	Fetches atomic.Int64 // of the key set
	Asked   atomic.Int64 // for tokens

	mu     sync.Mutex
	key    *ecdsa.PrivateKey           // guarded by mu
	kid    string                      // guarded by mu
	secret map[string]string           // by access key id; guarded by mu
	roles  map[string]string           // by access key id; guarded by mu
	change func(claims map[string]any) // guarded by mu
	answer http.HandlerFunc            // in place of who is asking; guarded by mu
}

// NewSTS starts one of an account.
func NewSTS(t testing.TB, account string) *STS {
	t.Helper()
	s := &STS{t: t, Account: account, key: ECKey(t, elliptic.P384()), kid: "EC384_0", secret: map[string]string{}, roles: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /issuer/.well-known/jwks.json", s.keys)
	mux.HandleFunc("GET /credentials/{id}", s.credentials)
	mux.HandleFunc("POST /{$}", s.token)
	s.server = httptest.NewServer(mux)
	t.Cleanup(s.server.Close)
	return s
}

// URL is STS's.
func (s *STS) URL() string { return s.server.URL }

// Issuer is that of the account's tokens.
func (s *STS) Issuer() string { return s.server.URL + "/issuer" }

// ARN is that of a role of the account.
func (s *STS) ARN(role string) string { return "arn:aws:iam::" + s.Account + ":role/" + role }

// Environment is that of a task which runs with the role of an ARN.
func (s *STS) Environment(arn string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := "AKIA" + rand.Text()[:16]
	s.secret[id], s.roles[id] = rand.Text(), arn
	return map[string]string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": s.server.URL + "/credentials/" + id, "AWS_REGION": "eu-west-1",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", // which would be taken first
		"AWS_CA_BUNDLE": "", // which each client would read, and nobody here needs
	}
}

// Rotate has tokens signed by another key from now on, which alone is published.
func (s *STS) Rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key, s.kid = ECKey(s.t, elliptic.P384()), s.kid+"'"
}

// Tamper has the claims of each token changed before it is signed, from now on.
func (s *STS) Tamper(change func(claims map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change = change
}

func (s *STS) signer() (*ecdsa.PrivateKey, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key, s.kid
}

func (s *STS) keys(w http.ResponseWriter, _ *http.Request) {
	s.Fetches.Add(1)
	key, kid := s.signer()
	_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: kid, Algorithm: "ES384", Use: "sig"}}})
}

func (s *STS) credentials(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := req.PathValue("id")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"RoleArn": s.roles[id], "AccessKeyId": id, "SecretAccessKey": s.secret[id], "Token": "session-" + id,
		"Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	})
}

// Claims are those of a token for an audience, of who has a role.
func (s *STS) Claims(arn, region, audience string, lifetime time.Duration) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": s.Issuer(), "aud": audience, "sub": arn, "iat": now.Unix(), "exp": now.Add(lifetime).Unix(), "jti": rand.Text(),
		"https://sts.amazonaws.com/": map[string]any{"aws_account": s.Account, "source_region": region, "org_id": "o-abc1234567", "principal_tags": map[string]any{"team": "web"}},
	}
}

// Sign makes a token of claims as they are.
func (s *STS) Sign(claims map[string]any) string {
	s.t.Helper()
	key, kid := s.signer()
	return Sign(s.t, key, kid, claims)
}

// Sign makes a token of claims by ES384.
func Sign(t testing.TB, key *ecdsa.PrivateKey, kid string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES384, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, (&jose.SignerOptions{}).WithType("JWT"))
	payload, notJSON := json.Marshal(claims)
	if err := errors.Join(err, notJSON); err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// token is sts:GetWebIdentityToken.
func (s *STS) token(w http.ResponseWriter, req *http.Request) {
	s.Asked.Add(1)
	body, err := io.ReadAll(req.Body)
	req.Body = io.NopCloser(strings.NewReader(string(body)))
	arn, region, signed := s.caller(req, body)
	switch {
	case err != nil || req.ParseForm() != nil:
		s.refuse(w, "InvalidParameterValue")
	case signed != nil:
		s.t.Log(signed)
		s.refuse(w, "SignatureDoesNotMatch")
	case req.PostForm.Get("Action") == "GetCallerIdentity":
		s.identity(w, req, arn)
	case req.PostForm.Get("Action") != "GetWebIdentityToken" || req.PostForm.Get("SigningAlgorithm") != "ES384":
		s.refuse(w, "InvalidAction")
	default:
		seconds, err := time.ParseDuration(req.PostForm.Get("DurationSeconds") + "s")
		if err != nil || seconds < time.Minute || seconds > time.Hour {
			s.refuse(w, "ValidationError")
			return
		}
		claims := s.Claims(arn, region, req.PostForm.Get("Audience.member.1"), seconds)
		s.mu.Lock()
		change := s.change
		s.mu.Unlock()
		if change != nil {
			change(claims)
		}
		_, _ = fmt.Fprintf(w, `<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetWebIdentityTokenResult><WebIdentityToken>%s</WebIdentityToken><Expiration>%s</Expiration></GetWebIdentityTokenResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetWebIdentityTokenResponse>`,
			s.Sign(claims), time.Now().Add(seconds).UTC().Format(time.RFC3339))
	}
}

// Answer has who is asking answered so from now on; nil by who it is.
func (s *STS) Answer(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// CallerIdentity is the answer of sts:GetCallerIdentity.
const CallerIdentity = `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>%s</Arn><UserId>AROAEXAMPLE:session-1</UserId><Account>%s</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>`

// identity is sts:GetCallerIdentity, of who has a role, or is the user of an ARN.
func (s *STS) identity(w http.ResponseWriter, req *http.Request, arn string) {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		answer(w, req)
		return
	}
	if req.Host != "sts.eu-west-1.amazonaws.com" { // the region of each task here
		s.refuse(w, "SignatureDoesNotMatch")
		return
	}
	if _, role, ok := strings.Cut(arn, ":role/"); ok { // without its path
		arn = "arn:aws:sts::" + s.Account + ":assumed-role/" + role[strings.LastIndexByte(role, '/')+1:] + "/session-1"
	}
	_, _ = fmt.Fprintf(w, CallerIdentity, arn, s.Account)
}

func (s *STS) refuse(w http.ResponseWriter, code string) {
	w.WriteHeader(http.StatusForbidden)
	_, _ = fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>no</Message></Error><RequestId>1</RequestId></ErrorResponse>`, code)
}

// caller verifies the signature of a request (SigV4) by making it again, and returns who signed.
func (s *STS) caller(req *http.Request, body []byte) (arn, region string, err error) {
	given := req.Header.Get("Authorization")
	var id, day, service string
	_, rest, _ := strings.Cut(given, "Credential=")
	scope, _, _ := strings.Cut(rest, ",")
	if parts := strings.Split(scope, "/"); len(parts) == 5 {
		id, day, region, service = parts[0], parts[1], parts[2], parts[3]
	}
	_, rest, _ = strings.Cut(given, "SignedHeaders=")
	names, _, _ := strings.Cut(rest, ",")
	s.mu.Lock()
	secret, arn := s.secret[id], s.roles[id]
	s.mu.Unlock()
	at, err := time.Parse("20060102T150405Z", req.Header.Get("X-Amz-Date"))
	if err != nil || arn == "" || req.Header.Get("X-Amz-Security-Token") != "session-"+id || !strings.HasPrefix(req.Header.Get("X-Amz-Date"), day) || time.Since(at).Abs() > 5*time.Minute {
		return "", "", errors.New("not signed")
	}
	again, err := http.NewRequestWithContext(req.Context(), req.Method, s.server.URL+"/", strings.NewReader(string(body)))
	if err != nil {
		return "", "", err
	}
	for name := range strings.SplitSeq(names, ";") {
		if v := req.Header.Values(name); name != "host" && len(v) > 0 {
			again.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	again.ContentLength, again.Host = req.ContentLength, req.Host
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(req.Context(), aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: "session-" + id}, again, hex.EncodeToString(sum[:]), service, region, at)
	if err == nil && again.Header.Get("Authorization") != given {
		err = fmt.Errorf("%s and not %s", given, again.Header.Get("Authorization"))
	}
	return arn, region, err
}

// Without returns claims without some, and with others.
func Without(claims map[string]any, with map[string]any, names ...string) map[string]any {
	out := maps.Clone(claims)
	for _, n := range names {
		delete(out, n)
	}
	maps.Copy(out, with)
	return out
}
