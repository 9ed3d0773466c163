package ecs

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"signet.example/proxy"
)

// Roles is what changes for the IAM roles of a definition.
type Roles struct {
	// Role is the task's, by its ARN, or the path of it where that is a function.
	Role string `json:"role"`
	// Add are statements for its policy; Remove what was there for App Mesh alone.
	Add    []string `json:"add"`
	Remove []string `json:"remove"`
	// Execution is what the execution role has to be able to do.
	Execution []string `json:"execution"`
}

func (t *task) roles(domain string) Roles {
	role := t.get("taskRoleArn").literal()
	if role == "" {
		role = t.at("taskRoleArn")
	}
	return Roles{
		Role: role,
		Add: []string{`{"Effect": "Allow", "Action": "sts:GetWebIdentityToken", "Resource": "*", "Condition": {` +
			`"ForAllValues:StringLike": {"sts:IdentityTokenAudience": ` + quoted("signet:"+domain+":*") + `}, ` +
			`"StringEquals": {"sts:SigningAlgorithm": "ES384"}, "NumericLessThanEquals": {"sts:DurationSeconds": 60}}}`},
		Remove: []string{
			"appmesh:StreamAggregatedResources, or the managed policy AWSAppMeshEnvoyAccess, once no revision with App Mesh's Envoy runs",
			"acm:ExportCertificate and acm-pca:GetCertificateAuthorityCertificate, where they are for App Mesh's TLS alone",
		},
		Execution: []string{"pulls " + t.options.Image},
	}
}

// roleARN is the one form that the server's configuration has.
var roleARN = regexp.MustCompile(`^arn:[a-z-]+:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$`)

// notInNames is what a role's name may have and an object's may not.
var notInNames = regexp.MustCompile(`^-|[^A-Za-z0-9._-]+`)

// maxName of an object, in bytes.
const maxName = 253

// named is the name of an object by that of something else: the same, where it can be, else one
// that no other has.
func named(of string) string {
	if !notInNames.MatchString(of) && len(of) <= maxName {
		return of
	}
	return distinct(of, of)
}

// distinct is a name that is set apart from others by all of what it is for.
func distinct(of, from string) string {
	sum := sha256.Sum256([]byte(from))
	end := "-" + hex.EncodeToString(sum[:4])
	of = strings.TrimLeft(notInNames.ReplaceAllString(of, "-"), "-")
	return of[:min(len(of), maxName-len(end))] + end
}

// groupOf is the name of the group of a role's tasks: its account and name, as other accounts have
// roles of the same name. Where a path or another partition tells it apart, so does the group's.
func groupOf(role string) string {
	name := role[strings.LastIndexByte(role, '/')+1:]
	account := strings.Split(role, ":")[4] // as roleARN says
	if role == "arn:aws:iam::"+account+":role/"+name {
		return named(account + "." + name)
	}
	return distinct(account+"."+name, role)
}

// objects are the group of the tasks of this role, and whose proxies they are; none where the
// definition does not say both.
func (t *task) objects() []string {
	role := t.get("taskRoleArn").literal()
	ref, err := proxy.ParseRef(t.proxy)
	if err != nil || strings.ContainsAny(t.proxy, "${}") || !roleARN.MatchString(role) {
		t.note("apply a NodeGroup with the selector aws_task:role:ARN of the task's role, and a Binding for its proxy (docs/TASKS.md): the definition names them by functions")
		return nil
	}
	group := groupOf(role)
	binding := named(ref.Mesh + "." + ref.Name)
	switch {
	case strings.Contains(ref.Mesh+ref.Name, "."):
		binding = distinct(ref.Mesh+"."+ref.Name, ref.String())
	case ref.Gateway(): // of the same name as a virtual node, perhaps
		binding = named(ref.Mesh + ".gateway." + ref.Name)
	}
	more := ", applications: [namespace]"
	if ref.Gateway() {
		more = ""
	}
	t.note("the server's configuration has %s in join.aws_task.accounts[].roles (docs/AGENT.md)", role)
	return []string{fmt.Sprintf(`apiVersion: signet.example/v1alpha1
kind: NodeGroup
metadata: {name: %s}
spec: {selectors: [%s]}
---
`, quoted(group), quoted("aws_task:role:"+role)), fmt.Sprintf(`apiVersion: signet.example/v1alpha1
kind: Binding
metadata: {name: %s}
spec: {group: %s, mesh: %s, %s: %s, selectors: [%s]%s}
---
`, quoted(binding), quoted(group), quoted(ref.Mesh), ref.Kind, quoted(ref.Name), quoted("signet:proxy:"+ref.Name), more)}
}

// check refuses options that no task could start with, and returns the trust domain.
func (o Options) check() (domain string, err error) {
	var errs []error
	if host, port, err := net.SplitHostPort(o.Server); err != nil || host == "" || port == "" {
		errs = append(errs, fmt.Errorf("server: want host:port, got %q", o.Server))
	}
	if o.Image == "" || strings.ContainsAny(o.Image, " \t\r\n\"\\") {
		errs = append(errs, fmt.Errorf("image: want the image of Signet's agent in a registry that the tasks reach, got %q", o.Image))
	}
	if o.WayOut != "" && !slices.Contains(WaysOut, string(o.WayOut)) {
		errs = append(errs, fmt.Errorf("way out: want %s, got %q", strings.Join(WaysOut, ", "), o.WayOut))
	}
	domain, err = trustDomain(o.Root)
	return domain, errors.Join(append(errs, err)...)
}

// trustDomain is that of root certificates, which are all that the text has: what else is in a file may be a secret.
func trustDomain(text string) (string, error) {
	const want = "trust: want the trust domain's root certificate in PEM, ca/root.crt of what `signet init` made"
	domain, read := "", ""
	for rest := []byte(text); len(strings.TrimSpace(string(rest))) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return "", errors.New(want + ", and nothing else")
		}
		read += string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", fmt.Errorf("%s: %w", want, err)
		}
		if len(c.URIs) != 1 || c.URIs[0].Scheme != "spiffe" || !c.IsCA || domain != "" && domain != c.URIs[0].Host {
			return "", fmt.Errorf("%s: that of %q is no root of one", want, c.Subject)
		}
		domain = c.URIs[0].Host
	}
	switch {
	case domain == "":
		return "", errors.New(want)
	case letters(read) != letters(text): // PEM's reader passes over what is before a block and in its head
		return "", errors.New(want + ", and nothing else: `openssl x509 -in FILE` writes it without what is before it")
	}
	return domain, nil
}

// letters are those of a text without its spaces and ends of lines.
func letters(text string) string { return strings.Join(strings.Fields(text), "") }
