package awscaller

import (
	"bytes"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"signet.example/attestation/platform"
	"signet.example/identity"
)

const maxAnswer = 16 << 10

// caller is whom STS names.
type caller struct{ ARN, UserID, Account string }

// answer is that of GetCallerIdentity and of nothing else. Lists, so that what is there twice is
// seen.
type answer struct {
	XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
	Results []struct {
		ARNs     []string `xml:"https://sts.amazonaws.com/doc/2011-06-15/ Arn"`
		UserIDs  []string `xml:"https://sts.amazonaws.com/doc/2011-06-15/ UserId"`
		Accounts []string `xml:"https://sts.amazonaws.com/doc/2011-06-15/ Account"`
	} `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResult"`
}

// ask asks STS. What it refuses is the host's fault; where it does not answer, the host is to
// try again.
func ask(req *http.Request) (caller, error) {
	client := clientOf(req.Host)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		// The error has addresses of the server's, and strangers may read this one.
		return caller{}, fmt.Errorf("%w: %s does not answer the server within %s, or not as itself", platform.ErrLater, req.Host, asked)
	}
	defer func() { _ = resp.Body.Close() }() // read to the end or given up: nothing to lose
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return caller{}, fmt.Errorf("%w: the answer of STS broke off", platform.ErrLater)
	case len(text) > maxAnswer:
		return caller{}, fmt.Errorf("the answer of STS has more than %d bytes", maxAnswer)
	case resp.StatusCode != http.StatusOK:
		return caller{}, refusal(resp.StatusCode, text)
	}
	return read(text)
}

// clientOf reaches one host, which has to prove its name, and follows nobody elsewhere.
func clientOf(host string) *http.Client {
	return &http.Client{
		Timeout: asked,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true,
			TLSClientConfig:     &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: asked, ResponseHeaderTimeout: asked, MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// later are STS's codes for what is not the caller's fault.
var later = []string{"Throttling", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable", "InternalFailure"}

func refusal(status int, text []byte) error {
	var e struct {
		XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
		Code    string   `xml:"Error>Code"`
	}
	code := "no reason"
	if err := xml.Unmarshal(text, &e); err == nil {
		code = identity.Abbreviate(e.Code)
	}
	if status >= 500 || status == http.StatusTooManyRequests || slices.Contains(later, e.Code) {
		return fmt.Errorf("%w: STS answers %d (%s)", platform.ErrLater, status, code)
	}
	return fmt.Errorf("STS refuses it: %d (%s)", status, code)
}

// read reads an answer, of which everything is where it belongs, once.
func read(text []byte) (caller, error) {
	var a answer
	d := xml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&a); err != nil {
		return caller{}, errors.New("what STS answers is not the answer of GetCallerIdentity")
	}
	if len(a.Results) != 1 || len(a.Results[0].ARNs) != 1 || len(a.Results[0].UserIDs) != 1 || len(a.Results[0].Accounts) != 1 {
		return caller{}, errors.New("what STS answers names nobody, or several")
	}
	if rest := bytes.TrimSpace(text[d.InputOffset():]); len(rest) > 0 {
		return caller{}, errors.New("what STS answers has more than the answer of GetCallerIdentity")
	}
	r := a.Results[0]
	return caller{ARN: r.ARNs[0], UserID: r.UserIDs[0], Account: r.Accounts[0]}, nil
}
