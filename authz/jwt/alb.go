package jwt

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

const (
	maxSigners = 16
	maxCallers = 64
)

// ALB is what an issuer has that is an AWS Application Load Balancer: one that has users
// log in, and tells who they are in a token of its own (docs/decisions/084). Audiences of
// such an Issuer are the clients by which the load balancer is known to who vouches for its
// users, and its keys are found by their ids alone, below KeysURL.
type ALB struct {
	Signers []string // ARNs
	KeysURL string
	// Ingress are the names of those of listeners from which a token is taken, and Callers the
	// SPIFFE IDs of those who pass it on.
	Ingress, Callers []string
}

// Same reports whether two are, of which either may be nil.
func (a *ALB) Same(b *ALB) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.KeysURL == b.KeysURL && slices.Equal(a.Signers, b.Signers) && slices.Equal(a.Ingress, b.Ingress) && slices.Equal(a.Callers, b.Callers)
}

// ALBSpec is the spec of kind ALBIssuer.
type ALBSpec struct {
	// Issuer and Clients are those of the listener rules that have users log in.
	Issuer  string   `yaml:"issuer" json:"issuer"`
	Clients []string `yaml:"clients" json:"clients"`
	// Signers are the ARNs of the load balancers.
	Signers []string `yaml:"signers" json:"signers"`
	Ingress []string `yaml:"ingress" json:"ingress"`
	Callers []string `yaml:"callers,omitempty" json:"callers,omitempty"`
	KeysURL string   `yaml:"keysURL,omitempty" json:"keysURL,omitempty"`
}

// arnRE matches the ARN of an Application Load Balancer: its partition is 1 and its region 2.
var arnRE = regexp.MustCompile(`^arn:(aws[a-z-]*):elasticloadbalancing:([a-z]{2}(?:-[a-z]+)+-[0-9]+):[0-9]{12}:loadbalancer/app/[0-9A-Za-z-]{1,32}/[0-9a-f]{16}$`)

// Build understands the spec.
func (s ALBSpec) Build(name string) (Issuer, error) {
	keys, noKeys := s.keysURL()
	if err := errors.Join(identity.CheckObjectName(name), checkText("spec.issuer", s.Issuer), checkList("spec.clients", s.Clients, maxAudiences, nil),
		checkList("spec.signers", s.Signers, maxSigners, checkARN), checkList("spec.ingress", s.Ingress, maxSigners, nil), s.checkCallers(), noKeys); err != nil {
		return Issuer{}, err
	}
	alb := &ALB{Signers: slices.Clone(s.Signers), KeysURL: keys, Ingress: slices.Clone(s.Ingress), Callers: slices.Clone(s.Callers)}
	return Issuer{Name: name, Issuer: s.Issuer, Audiences: slices.Clone(s.Clients), ALB: alb}, nil
}

// keysURL is where AWS has the keys of the load balancers' region, unless it is said.
func (s ALBSpec) keysURL() (string, error) {
	if s.KeysURL != "" {
		err := checkHTTPURL(s.KeysURL)
		if u, parsed := url.Parse(s.KeysURL); err == nil && (parsed != nil || u.RawQuery != "" || u.ForceQuery) {
			err = errors.New("a key's id is put behind it, so that it has no query")
		}
		if err != nil {
			return "", &identity.FieldError{Path: "spec.keysURL", Msg: err.Error()}
		}
		return strings.TrimSuffix(s.KeysURL, "/"), nil
	}
	place := ""
	for _, arn := range s.Signers {
		m := arnRE.FindStringSubmatch(arn)
		if m == nil {
			return "", nil // checkARN says so
		}
		at := map[string]string{
			"aws":        "https://public-keys.auth.elb." + m[2] + ".amazonaws.com",
			"aws-us-gov": "https://s3-" + m[2] + ".amazonaws.com/aws-elb-public-keys-prod-" + m[2],
		}[m[1]]
		switch {
		case at == "":
			return "", identity.NewFieldError("spec.keysURL", "is needed in partition %s: where the keys of its load balancers are is not known here", m[1])
		case place != "" && place != at:
			return "", identity.NewFieldError("spec.signers", "are of several regions, whose keys are in several places: one ALBIssuer for each")
		}
		place = at
	}
	return place, nil
}

func checkARN(at, arn string) error {
	if !arnRE.MatchString(arn) {
		return identity.NewFieldError(at, "%s is not the ARN of an Application Load Balancer, such as arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188", identity.Abbreviate(arn))
	}
	return nil
}

func (s ALBSpec) checkCallers() error {
	if len(s.Callers) == 0 {
		return nil
	}
	return checkList("spec.callers", s.Callers, maxCallers, func(at, id string) error {
		if _, err := spiffeid.FromString(id); err != nil {
			return identity.NewFieldError(at, "%s is not a SPIFFE ID: %v", identity.Abbreviate(id), err)
		}
		return nil
	})
}

// checkList wants some texts, each once.
func checkList(field string, list []string, most int, each func(at, text string) error) error {
	if len(list) == 0 || len(list) > most {
		return identity.NewFieldError(field, "%d given: want 1 to %d", len(list), most)
	}
	for i, text := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		if err := checkText(at, text); err != nil {
			return err
		}
		if slices.Contains(list[:i], text) {
			return identity.NewFieldError(at, "%s is given twice", identity.Abbreviate(text))
		}
		if each != nil {
			if err := each(at, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// Key is what an issuer is stored and distributed by: a name for each, whatever its kind.
func (i Issuer) Key() string {
	if i.ALB != nil {
		return albKey + i.Name
	}
	return i.Name
}

// algorithmOfALB is the one algorithm of load balancers.
const algorithmOfALB = jose.ES256

// albKey is in no name of an object.
const albKey = "alb/"

// KindOf returns the kind and the name of the issuer that has a key.
func KindOf(key string) (kind, name string) {
	if name, ok := strings.CutPrefix(key, albKey); ok {
		return "ALBIssuer", name
	}
	return "JWTIssuer", key
}
