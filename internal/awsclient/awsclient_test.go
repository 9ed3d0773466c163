package awsclient_test

import (
	"testing"

	"signet.example/internal/awsclient"
)

func TestWhatIsNoNameOfAWSIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		check     func(string) error
		good, bad []string
	}{
		"region":   {awsclient.CheckRegion, []string{"eu-west-1", "us-gov-west-1", "cn-north-1"}, []string{"", "eu-west", "EU-WEST-1", "eu-west-1 ", "eu-west-1/x", "global"}},
		"role":     {awsclient.CheckRole, []string{"arn:aws:iam::123456789012:role/web", "arn:aws-cn:iam::123456789012:role/a/b+c"}, []string{"", "web", "arn:aws:iam::1234:role/web", "arn:aws:iam::123456789012:user/web", "arn:aws:iam::123456789012:role/", "arn:aws:iam::123456789012:role/*", "arn:aws:sts::123456789012:assumed-role/web/x"}},
		"endpoint": {awsclient.CheckEndpoint, []string{"https://vpce-1.sts.eu-west-1.vpce.amazonaws.com", "http://127.0.0.1:8080", "http://[::1]:8080"}, []string{"", "http://sts.example", "http://localhost:80", "https://user@sts.example", "https://sts.example?x=1", "https://sts.example#x", "sts.example", "file:///etc/passwd"}},
	} {
		for _, s := range c.good {
			if err := c.check(s); err != nil {
				t.Errorf("%s %q: %v", name, s, err)
			}
		}
		for _, s := range c.bad {
			if c.check(s) == nil {
				t.Errorf("%s %q is taken", name, s)
			}
		}
	}
}
