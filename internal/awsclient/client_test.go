package awsclient_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"signet.example/internal/awsclient"
)

// The question has a session token, and whoever answers could have it sent anywhere.
func TestNoAnswerLeadsAQuestionElsewhere(t *testing.T) {
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"} {
		t.Setenv(name, value)
	}
	asked, led := 0, 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { led++ }))
	defer elsewhere.Close()
	for _, code := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			http.Redirect(w, r, elsewhere.URL, code)
		}))
		conf, err := awsclient.Load(t.Context(), "eu-west-1", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []aws.Config{conf, awsclient.Once(conf)} {
			client := sts.NewFromConfig(c, func(o *sts.Options) {
				o.BaseEndpoint = &s.URL
				o.APIOptions = append(o.APIOptions, awsclient.AsGiven)
			})
			if _, err := client.GetCallerIdentity(t.Context(), nil); err == nil {
				t.Errorf("%d is an answer", code)
			}
		}
		s.Close()
	}
	if asked != 10 || led != 0 {
		t.Errorf("asked %d times, and led elsewhere %d times", asked, led)
	}
}

func TestOfAnAnswerThatIsReducedSoMuchIsRead(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(make([]byte, 1000)) // the client sees it or has failed
	}))
	defer s.Close()
	conf, err := awsclient.Load(t.Context(), "eu-west-1", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	_, err = sts.NewFromConfig(conf, func(o *sts.Options) {
		o.BaseEndpoint = &s.URL
		o.APIOptions = append(o.APIOptions, awsclient.AsGiven, awsclient.Reduced(100, func(r io.Reader) ([]byte, error) {
			b, err := io.ReadAll(r)
			read = len(b)
			return []byte("<GetCallerIdentityResponse><GetCallerIdentityResult/></GetCallerIdentityResponse>"), err
		}))
	}).GetCallerIdentity(t.Context(), nil)
	if err != nil || read != 100 {
		t.Errorf("%d bytes were read: %v", read, err)
	}
}
