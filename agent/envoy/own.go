package envoy

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"signet.example/proxy"
)

// Own is an Envoy that somebody else starts.
type Own struct {
	// Ref is what it runs for, where it is.
	Ref   proxy.Ref
	Where proxy.Where
	// Admin is the Unix socket of its admin interface, XDSSocket the agent's.
	Admin, XDSSocket string
}

//go:embed own.yaml.tmpl
var ownText string

// Bootstrap is what it starts with, as YAML for people, who go on writing it.
func (o Own) Bootstrap() (string, error) {
	if o.Ref.Gateway() && o.Where != (proxy.Where{Bind: o.Where.Bind}) {
		return "", fmt.Errorf("%s: there is no application behind a gateway: leave app and egress out", o.Ref)
	}
	if err := o.Where.Validate(); err != nil {
		return "", err
	}
	s, err := o.Where.Shape(nil)
	if err != nil {
		return "", err
	}
	s.Suit(o.Ref)
	in, out := int64(proxyConnections-proxyConnections/2), int64(proxyConnections/2)
	if s.Alone {
		in += out
	}
	page, err := template.New("bootstrap").Funcs(template.FuncMap{"text": scalar}).Parse(ownText)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = page.Execute(&b, map[string]any{
		"Ref": o.Ref, "Admin": o.Admin, "XDSSocket": o.XDSSocket, "Fields": fieldsOf(s), "Heap": proxyHeap,
		"Limited": !s.Alone, "Limit": limitOf(s.Egress.Listener()), "In": in, "Out": out,
	})
	return b.String(), err
}

// fieldsOf are the fields of a Shape as its node's metadata has them, in the order of the listeners.
func fieldsOf(s proxy.Shape) []string {
	fields := s.Metadata().GetFields()[proxy.ShapeKey].GetStructValue().GetFields()
	var list []string
	for _, name := range []string{"bind", "app", "egress", "egress_mode"} {
		if v, ok := fields[name]; ok {
			list = append(list, name+": "+scalar(v.GetStringValue()))
		}
	}
	return list
}

var (
	// asIs is what YAML reads as the text that it is, in a flow mapping too.
	asIs = regexp.MustCompile(`^([A-Za-z/][A-Za-z0-9_./-]*|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)$`)
	// otherwise are the words that YAML reads as something else.
	otherwise = []string{"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
)

// scalar is text as YAML.
func scalar(text string) string {
	if asIs.MatchString(text) && !slices.Contains(otherwise, strings.ToLower(text)) {
		return text
	}
	b, _ := json.Marshal(text) // of a string: cannot fail
	return string(b)
}
