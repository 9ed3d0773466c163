package agent_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"signet.example/agent"
	"signet.example/attestation/awstask"
	"signet.example/test/parts"
)

// A9-47: a task that is cut off for longer than the servers know it joins anew, and goes on meanwhile.
func TestATaskThatIsForgottenIsGivenEverythingAgainAsAnotherAgent(t *testing.T) {
	aws := parts.NewSTS(t, "123456789012")
	for name, value := range aws.Environment(aws.ARN("web")) {
		t.Setenv(name, value)
	}
	var trust string
	r := newRig(t, func(f *fakeServer) {
		trust = parts.WriteCerts(t, f.root)
		f.tasks, f.lifetime = true, 20*time.Second // renewed after three
		f.entries = append(f.entries, entry("web", "/web", self(t)))
	}, func(c *agent.Config) {
		c.TokenFile, c.Trust = "", trust
		c.Join.AWSTask = awstask.Host{Region: "environment", Endpoint: aws.URL()}
	})
	one, two := td.IDString()+"/signet/agent/one", td.IDString()+"/signet/agent/two"
	series := func(id string) string {
		return r.metric(fmt.Sprintf("signet_agent_svid_not_after_timestamp_seconds{spiffe_id=%q}", id))
	}
	r.await("the first agent's own view", func() bool { return r.follows(one) && series(one) != "" })
	r.forget("two")
	r.await("the second agent's own view", func() bool { return r.follows(two) })
	if series(one) != "" || series(two) == "" {
		t.Errorf("metrics have %q of the agent that was, and %q of the one that is", series(one), series(two))
	}
	r.change(func(f *fakeServer) { f.entries = append(f.entries, entry("later", "/later", self(t))) })
	r.await("what came after it", func() bool { return strings.Contains(r.log.String(), "entries=2") })
}
