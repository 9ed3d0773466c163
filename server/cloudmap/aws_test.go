package cloudmap

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What somebody's home folder says of credentials may name a program, and is not read; what
// comes is signed by those of the environment, and asks as the spec says.
func TestCloudMapIsAskedAsTheEnvironmentSaysAndNoFileOfAHomeFolder(t *testing.T) {
	home := t.TempDir()
	ran := filepath.Join(home, "ran")
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".aws", "config"), fmt.Appendf(nil, "[default]\nregion = us-east-1\ncredential_process = touch %s\n", ran), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(name, "")
	}
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if by := r.Header.Get("Authorization"); !strings.HasPrefix(by, "AWS4-HMAC-SHA256 Credential=AKIATEST/") || !strings.Contains(by, "/eu-west-1/servicediscovery/aws4_request") {
			t.Errorf("signed by %q", by)
		}
		var q struct {
			NamespaceName, ServiceName, HealthStatus string
			QueryParameters                          map[string]string
			MaxResults                               int
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.NamespaceName != "shop.local" || q.ServiceName != "orders" || q.HealthStatus != "HEALTHY_OR_ELSE_ALL" || q.QueryParameters["stage"] != "blue" || q.MaxResults != mostInstances {
			t.Errorf("asked %+v, %v", q, err)
		}
		_, _ = w.Write([]byte(`{"Instances": [{"Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1"}}, {"Attributes": null}, {}], "InstancesRevision": 7}`)) // the client sees it or has failed
	}))
	defer s.Close()
	q := Question{Namespace: "shop.local", Service: "orders", Attributes: map[string]string{"stage": "blue"}}
	ask := func() ([]Instance, int64, error) {
		a, err := Where{Region: "eu-west-1", Endpoint: s.URL}.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return a.Discover(t.Context(), q)
	}
	if _, _, err := ask(); err == nil || asked > 0 {
		t.Errorf("without credentials: asked %d times, %v", asked, err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	if list, revision, err := ask(); err != nil || len(list) != 1 || list[0].Address != "10.0.0.1" || revision != 7 {
		t.Errorf("got %v, %d, %v", list, revision, err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program that a file of the home folder names was run")
	}
}
