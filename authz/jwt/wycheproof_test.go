package jwt_test

import (
	"encoding/json"
	"os"
	"testing"

	"signet.example/authz/jwt"
	"signet.example/test/parts"
)

// shared reads a file of the shared test vectors.
func shared(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(parts.Shared(t, "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNoInvalidWycheproofSignatureIsAccepted(t *testing.T) {
	var file struct {
		TestGroups []struct {
			Comment         string
			Public, Private json.RawMessage
			Tests           []struct {
				TcID         int
				Comment, JWS string
				Result       string
			}
		}
	}
	if err := json.Unmarshal(shared(t, "wycheproof/json_web_signature_test.json"), &file); err != nil {
		t.Fatal(err)
	}
	accepted, refusedValid, used := 0, 0, 0
	for _, g := range file.TestGroups {
		key := g.Public
		if key == nil {
			key = g.Private
		}
		if _, err := jwt.KeyAlgorithm(key); err == nil {
			used++
		}
		for _, c := range g.Tests {
			err := jwt.VerifySignature(key, c.JWS)
			switch {
			case err == nil && c.Result != "valid":
				t.Errorf("%s #%d (%s): accepted", g.Comment, c.TcID, c.Comment)
			case err == nil:
				accepted++
			case c.Result == "valid":
				refusedValid++
			}
		}
	}
	if accepted == 0 || used == 0 {
		t.Error("no key of the vectors was used: the test shows nothing")
	}
	t.Logf("%d keys used; %d valid accepted, %d valid refused (other algorithms)", used, accepted, refusedValid)
}
