package awstask_test

import (
	"testing"

	"signet.example/attestation/awstask"
)

func TestTheHostThatIsAskedHasAName(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-central-1")
	for want, h := range map[string]awstask.Host{
		"":                                {},
		"sts.eu-west-1.amazonaws.com":     {Region: "eu-west-1"},
		"sts.eu-central-1.amazonaws.com":  {Region: "environment"},
		"sts.cn-north-1.amazonaws.com.cn": {Region: "cn-north-1"},
		"sts.vpc.internal":                {Region: "eu-west-1", Endpoint: "https://sts.vpc.internal:8443"},
	} {
		if got := h.Asks(); got != want {
			t.Errorf("%+v asks %q, want %q", h, got, want)
		}
	}
}
