package awstask_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"signet.example/attestation/awstask"
	"signet.example/test/parts"
)

// inTask has this process run with a role, as its environment says.
func inTask(t *testing.T, environment map[string]string) {
	t.Helper()
	for name, value := range environment {
		t.Setenv(name, value)
	}
}

const account = "123456789012"

var challenge = []byte(strings.Repeat("c", 32))

// audience is whom a token of the challenge is for.
func audience() string {
	sum := sha256.Sum256(challenge)
	return "signet:test.example:" + hex.EncodeToString(sum[:])
}

func TestATaskIsGivenATokenForItsRoleThatNamesTheConnection(t *testing.T) {
	aws := parts.NewSTS(t, account)
	inTask(t, aws.Environment(aws.ARN("web")))
	host := awstask.Host{Region: "environment", Endpoint: aws.URL()}
	token, err := host.Prove(t.Context(), "test.example", challenge)
	if err != nil {
		t.Fatal(err)
	}
	v, tokens := verifier(t, aws, aws.ARN("web"))
	sels, err := v.Verify(t.Context(), awstask.Evidence{Token: token}, "test.example", challenge, tokens.now)
	if got := strings.Join(sels.Strings(), " "); err != nil || got != "aws_task:account:123456789012 aws_task:role:arn:aws:iam::123456789012:role/web aws_task:region:eu-west-1" {
		t.Errorf("%s, %v", got, err)
	}
	if strings.Contains(token, string(challenge)) || tokens.audience != audience() {
		t.Errorf("it is for %s", tokens.audience)
	}
}

func TestWhatSTSDoesNotGiveIsToldWithWhatToDo(t *testing.T) {
	for code, want := range map[string]string{
		"OutboundWebIdentityFederationDisabledException": "aws iam enable-outbound-web-identity-federation",
		"AccessDenied": "needs sts:GetWebIdentityToken",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>` + code + `</Code><Message>no</Message></Error><RequestId>1</RequestId></ErrorResponse>`))
		}))
		aws := parts.NewSTS(t, account)
		inTask(t, aws.Environment(aws.ARN("web")))
		_, err := awstask.Host{Region: "eu-west-1", Endpoint: srv.URL}.Prove(t.Context(), "test.example", challenge)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", code, err)
		}
		srv.Close()
	}
}

// An answer without end is given up.
func TestAnAnswerOfSTSIsBounded(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		for req.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	aws := parts.NewSTS(t, account)
	inTask(t, aws.Environment(aws.ARN("web")))
	if _, err := (awstask.Host{Region: "eu-west-1", Endpoint: srv.URL}).Prove(t.Context(), "test.example", challenge); err == nil || strings.Contains(err.Error(), "deadline") {
		t.Error(err)
	}
}

func TestAHostsConfigurationIsRefusedByItsKey(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	for want, h := range map[string]awstask.Host{
		"region: missing":                              {Endpoint: "https://sts.example"},
		"region: AWS_REGION is not in the env":         {Region: "environment"},
		"region: \"mars\" is not the name":             {Region: "mars"},
		"endpoint: \"http://sts.example\": it must be": {Region: "eu-west-1", Endpoint: "http://sts.example"},
	} {
		if err := h.Try(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", h, err, want)
		}
	}
	t.Setenv("AWS_REGION", "eu-west-1; rm")
	if err := (awstask.Host{Region: "environment"}).Try(); err == nil {
		t.Error("a region of the environment that is none")
	}
}
