// Package nodes is how a host proves to the server who it is when it joins: the list
// of the methods (methods.go), each a folder beside this one with both of its ends,
// and what all of them have in common. It must not know which group a host is in
// (identity matches selectors), nor what is kept of it (store).
//
// Main types in reading order: Channel, Evidence on the host, Attestors and Node at
// the server. One more method is a folder, a field of AttestRequest's evidence and a row
// of methods.
//
// # Concurrency
//
// All types are safe for concurrent use. The package starts no goroutine.
package nodes

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protowire"

	"signet.example/api"
	"signet.example/attestation/platform"
	"signet.example/identity"
)

// ErrEvidence is returned for evidence that does not prove what it should, and for a
// method that this server does not take. The caller may see the reason; the same
// evidence is useless a second time.
var ErrEvidence = errors.New("evidence refused")

// Channel is the connection on which a host gives evidence, as both of its ends see it.
type Channel struct {
	TrustDomain spiffeid.TrustDomain // the server's
	HostKey     []byte               // SHA-256 of the SPKI that the host's handshake proved
	TLS         tls.ConnectionState
}

// exporterLabel: RFC 5705 4 and RFC 9266 have the form; nobody else exports by it.
const exporterLabel = "EXPORTER-signet-node-evidence-v1"

// challenge is what a method signs, or has otherwise vouched for: a secret of this very
// connection, made of what both ends gave at random in its handshake (RFC 8446 7.5), of
// the method, the trust domain and the host key. Nobody has seen it before, and on no other
// connection, to whomever, will it be the same: so it is a nonce of the server's that
// nobody needs to send, remember or forget (docs/decisions/038).
func (c Channel) challenge(method string) ([]byte, error) {
	if !c.TLS.HandshakeComplete || c.TLS.Version < tls.VersionTLS13 {
		return nil, errors.New("internal error: evidence is given over TLS 1.3, after the handshake")
	}
	var about []byte
	for _, part := range [][]byte{[]byte(method), []byte(c.TrustDomain.Name()), c.HostKey} {
		about = binary.BigEndian.AppendUint32(about, uint32(len(part))) //nolint:gosec // names and hashes
		about = append(about, part...)
	}
	secret, err := c.TLS.ExportKeyingMaterial(exporterLabel, about, 32)
	if err != nil {
		return nil, fmt.Errorf("challenge of the connection: %w", err)
	}
	return secret, nil
}

// Evidence puts a host's evidence into the request that goes out on a channel. It may ask
// others for it, and waits no longer than ctx.
type Evidence func(ctx context.Context, on Channel, req *api.AttestRequest) error

// Weight is who pays for the check of evidence, and how much, before it is made.
type Weight struct {
	// Own is a bucket that nobody else can empty, where something good was shown that
	// nobody else can have; nil is the bucket of the caller's address.
	Own []byte
	// Units are the signatures to be verified, or one.
	Units int
	// Waits is true of evidence whose check waits for somebody else, and needs no processor meanwhile.
	Waits bool
}

// Node is what evidence has shown of a host.
type Node struct {
	Method string
	// Group that is named by what was shown; where it is empty, the selectors decide.
	Group     string
	Selectors identity.Selectors
	// Key is the same whenever this host gives evidence by this method, and no other
	// host's; nil for evidence that is good once.
	Key []byte
}

// attestor is the server's end of a method. Both are called by any goroutine; an
// error that is not ErrEvidence, nor the store's of a token, is not the host's fault.
type attestor interface {
	// weigh looks at what a request has without verifying anything.
	weigh(ctx context.Context, req *api.AttestRequest, now time.Time) (Weight, error)
	attest(ctx context.Context, req *api.AttestRequest, on Channel, now time.Time) (Node, error)
}

// method is one way to attest a node.
type method struct {
	// name is that of the field in AttestRequest's evidence, and the type of the selectors.
	name string
	// ends is true of what a task shows, which ends and does not come back: the next one
	// shows the same, and is another agent.
	ends bool
	// principal finds by whose credentials a host with these selectors joined, where any number
	// of hosts can join by the same; nil where each has evidence of its own.
	principal func(selectors []string) string
	// takes returns why a host that joined with these selectors is not served any more, by the
	// configuration of now; nil where what a host joined by is looked at once.
	takes func(cfg Config, selectors []string) error
	// issuers are those of the tokens by which hosts join, nil where there are none.
	issuers func(Config) ([]platform.Issuer, error)
	// quota is how many agents a principal may have, by a key of the method's; there where principal is.
	quota func(Config) Quota
	// selectors are the forms that hosts have by it, each with a check of its value.
	selectors map[string]func(string) error
	// attestor is the server's end; nil where the configuration does not turn it on.
	attestor func(Config, Server) (attestor, error)
	// given reports whether a host's configuration has it, and evidence is the host's
	// end, which reads what is configured, so that it can be tried. Both are nil for
	// what a host is given while it joins.
	given    func(HostConfig) bool
	evidence func(HostConfig) (Evidence, error)
	// written is by what that is known which others write for a host, and it shows as it is; nil
	// where evidence is made for each connection.
	written func(HostConfig) []byte
	// current reports what of it is not good at this moment, for a trust domain or, where it is not
	// known, ""; there where evidence is.
	current func(cfg HostConfig, trustDomain string, now time.Time) error
}

// Ends reports whether agents that joined by a method are those of tasks: when one has
// ended, nobody comes back as it.
func Ends(name string) bool {
	return slices.ContainsFunc(methods, func(m method) bool { return m.name == name && m.ends })
}

// Principal is by whose credentials a host joined that any number of hosts can join by, such as
// a role of AWS; "" where it has evidence of its own. What those hosts do is one's doing: they
// share what there is for agents.
func Principal(name string, selectors []string) string {
	i := slices.IndexFunc(methods, func(m method) bool { return m.name == name && m.principal != nil })
	if i < 0 {
		return ""
	}
	return methods[i].principal(selectors)
}

// Quota is how many agents a principal may have, and the key that says so.
type Quota struct {
	Most int
	Key  string
}

// Quota is that of a Principal.
func (c Config) Quota(principal string) Quota {
	name, _, _ := strings.Cut(principal, ":") // selectors begin with their method
	i := slices.IndexFunc(methods, func(m method) bool { return m.name == name && m.quota != nil })
	if i < 0 {
		return Quota{}
	}
	q := methods[i].quota(c)
	q.Key = "join." + name + "." + q.Key
	return q
}

// Issuers are those of the tokens by which hosts join. Files of keys are read now.
func (c Config) Issuers() ([]platform.Issuer, error) {
	var all []platform.Issuer
	for _, m := range methods {
		if m.issuers == nil {
			continue
		}
		list, err := m.issuers(c)
		if err != nil {
			return nil, fmt.Errorf("join.%s.%w", m.name, err)
		}
		all = append(all, list...)
	}
	return all, nil
}

// Takes returns why a host that joined by a method, with these selectors, is not served any
// more: the configuration has let go of what it joined by.
func (c Config) Takes(name string, selectors []string) error {
	i := slices.IndexFunc(methods, func(m method) bool { return m.name == name && m.takes != nil })
	if i < 0 {
		return nil
	}
	return methods[i].takes(c, selectors)
}

// Attestors are the server's ends of the methods that it takes.
type Attestors struct{ by map[string]attestor }

// Open makes those of a configuration, which it reads the files of.
func Open(cfg Config, s Server) (*Attestors, error) {
	a := &Attestors{by: map[string]attestor{}}
	for _, m := range methods {
		one, err := m.attestor(cfg, s)
		if err != nil {
			return nil, fmt.Errorf("join.%s.%w", m.name, err)
		}
		if one != nil {
			a.by[m.name] = one
		}
	}
	return a, nil
}

// Method is by which method a request has evidence, "" for none.
func Method(req *api.AttestRequest) string {
	m := req.ProtoReflect()
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("evidence")); f != nil {
		return string(f.Name())
	}
	return ""
}

// Newer refuses what a request without evidence has that this release cannot read: that
// of a method which came later is there, and reads as none.
func (a *Attestors) Newer(req *api.AttestRequest) error {
	unknown := req.ProtoReflect().GetUnknown()
	if Method(req) != "" || len(unknown) == 0 {
		return nil
	}
	field, _, _ := protowire.ConsumeTag(unknown)
	return fmt.Errorf("%w: this server does not know its method (field %d of the request), the agent is of a newer release; update the server, or join by %s",
		ErrEvidence, field, strings.Join(slices.Sorted(maps.Keys(a.by)), " or "))
}

// of finds the attestor of a request that has evidence.
func (a *Attestors) of(req *api.AttestRequest) (attestor, error) {
	name := Method(req)
	one := a.by[name]
	if one == nil {
		return nil, fmt.Errorf("%w: this server does not attest hosts by %s; its key join.%s turns that on", ErrEvidence, name, name)
	}
	return one, nil
}

// Weigh returns what it costs to check the request. It verifies nothing.
func (a *Attestors) Weigh(ctx context.Context, req *api.AttestRequest, now time.Time) (Weight, error) {
	if Method(req) == "" {
		return Weight{Units: 1}, nil
	}
	one, err := a.of(req)
	if err != nil {
		return Weight{}, err
	}
	return one.weigh(ctx, req, now)
}

// Attest checks a request that came on a channel, once its weight is paid.
func (a *Attestors) Attest(ctx context.Context, req *api.AttestRequest, on Channel, now time.Time) (Node, error) {
	one, err := a.of(req)
	if err != nil {
		return Node{}, err
	}
	n, err := one.attest(ctx, req, on, now)
	n.Method = Method(req)
	return n, err
}

// Given is the method that the configuration names, "" for none.
func (c HostConfig) Given() string {
	for _, m := range methods {
		if m.evidence != nil && m.given(c) {
			return m.name
		}
	}
	return ""
}

// Evidence is what a host joins by, as configured; nil where nothing is. Its files
// are read now, and again when it is given.
func (c HostConfig) Evidence() (Evidence, error) {
	for _, m := range methods {
		if m.evidence == nil || !m.given(c) {
			continue
		}
		e, err := m.evidence(c)
		if err != nil {
			return nil, fmt.Errorf("join.%s.%w", m.name, err)
		}
		return e, nil
	}
	return nil, nil
}

// Written is by what that is known which others have written for this host, so that it can be
// told whether there is something else by now; nil where evidence is made for each connection.
func (c HostConfig) Written() []byte {
	for _, m := range methods {
		if m.written != nil && m.given(c) {
			return m.written(c)
		}
	}
	return nil
}

// Ends reports whether what the configuration names is that of a task.
func (c HostConfig) Ends() bool { return Ends(c.Given()) }

// Current reports what is configured and is not good at this moment, for a trust domain or, where
// it is not known, "".
func (c HostConfig) Current(trustDomain string, now time.Time) error {
	for _, m := range methods {
		if m.evidence == nil || !m.given(c) {
			continue
		}
		if err := m.current(c, trustDomain, now); err != nil {
			return fmt.Errorf("join.%s.%w", m.name, err)
		}
	}
	return nil
}

// CheckGroup refuses a group's selectors that no host can have by any method.
func CheckGroup(g identity.NodeGroup) error {
	all := identity.Forms{}
	for _, m := range methods {
		for form, check := range m.selectors {
			all[m.name+":"+form] = check
		}
	}
	return all.Check(g.Selectors.Strings())
}
