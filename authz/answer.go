package authz

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/authz/jwt"
	"signet.example/policy"
	"signet.example/proxy"
)

// Limits of recorded text.
const (
	maxRecordedPath   = 1024
	maxRecordedHeader = 256
	maxRecordedText   = 256
)

// recordedHeaders is the allow-list of a record: names that carry no secret.
var recordedHeaders = []string{
	"accept", "content-length", "content-type", "user-agent", "x-request-id",
	"traceparent", "x-b3-traceid", "x-amzn-trace-id", "grpc-timeout",
}

// answer collects a decision's record on the way and becomes Envoy's answer.
// Until something allows it is a denial.
type answer struct {
	record  Record
	token   bool // a refused token: 401
	headers http.Header
	remove  []string
	// withheld headers no application gets, unless the policy sets one of that name.
	withheld []string
	// metadata is told to the proxy, of a connection.
	metadata *structpb.Struct
}

func (a *answer) caller(c Caller) {
	a.record.Destination, a.record.Proxy = c.Destination.String(), escape(c.Proxy, maxRecordedText)
}

// peer records where a caller without an identity is: there is nothing else by which it is found.
func (a *answer) peer(req *authv3.CheckRequest) {
	if at := req.GetAttributes().GetSource().GetAddress().GetSocketAddress(); a.record.Source == "" && at.GetAddress() != "" {
		a.record.Peer = escape(net.JoinHostPort(at.GetAddress(), strconv.FormatUint(uint64(at.GetPortValue()), 10)), maxRecordedText)
	}
}

// request records what may be recorded; this is where redaction happens.
func (a *answer) request(in policy.Input) {
	r := &a.record
	switch {
	case !in.Source.ID.IsZero():
		r.Source = in.Source.ID.String()
	case in.Source.Ingress != "":
		r.Source = proxy.IngressCallers(in.Source.Ingress)
	}
	if in.Connection != nil {
		a.connection(in.Connection)
		return
	}
	r.Method, r.Host = escape(in.Request.Method, maxRecordedText), escape(in.Request.Host, maxRecordedText)
	path, _, _ := strings.Cut(in.Request.Path, "#") // a fragment is as private as a query
	r.Path = escape(path, maxRecordedPath)
	for _, name := range recordedHeaders {
		if values := in.Request.Headers[name]; len(values) > 0 {
			if r.Headers == nil {
				r.Headers = make(map[string]string, len(recordedHeaders))
			}
			r.Headers[name] = escape(strings.Join(values, ", "), maxRecordedHeader)
		}
	}
}

// policy notes by which revision the request is judged.
func (a *answer) policy(r policy.Revision) {
	a.record.PolicyRevision, a.record.PolicySource, a.record.Commit = r.ID, r.Source, r.Commit
}

// observe lets through what the policy or its error denies, as the last step: what nobody
// could decide stays denied. The policy's headers are those of what it allows, so that none
// of that name passes.
func (a *answer) observe(in policy.Input, settable []string) {
	if a.record.Allowed || a.record.Cause == CauseUnavailable {
		return
	}
	a.record.Observed = true
	a.headers, a.remove = nil, append(settable, ownHeaders(in.Request.Headers)...)
}

// noPolicy denies where no policy is loaded, so that no rule can be missed.
func (a *answer) noPolicy() {
	a.record.Rules = []policy.RuleRef{{Name: "signet: no policy"}}
	a.deny(CausePolicy, "there is no policy: "+policy.WithoutPolicy+"; apply a PolicySource, or see signet check (SIG005, SIG006)")
}

func (a *answer) deny(cause Cause, message string) {
	a.record.Allowed, a.record.Cause, a.record.Message = false, cause, message
}

// refuse denies by a rule of Signet's own.
func (a *answer) refuse(err error) {
	var refused *refusedRequest
	if !errors.As(err, &refused) {
		a.deny(CauseError, "internal error: "+err.Error())
		return
	}
	a.record.Rules = []policy.RuleRef{{Name: refused.rule}}
	a.deny(CausePolicy, refused.rule+": "+refused.why)
}

func (a *answer) refuseToken(b brought, err error) {
	if errors.As(err, new(*jwt.UnknownKeyError)) {
		a.record.Rules = []policy.RuleRef{{Name: "signet: token key not here"}}
		a.deny(CauseUnavailable, b.name()+" cannot be verified: "+err.Error())
		return
	}
	a.token = true
	a.record.Rules = []policy.RuleRef{{Name: "signet: token refused"}}
	a.deny(CausePolicy, b.name()+" is refused: "+err.Error())
}

func (a *answer) decided(d policy.Decision, in policy.Input) {
	r := &a.record
	if d.Allowed {
		r.Allowed, r.Rules = true, d.Allow
		a.headers = d.Headers
		a.remove = append(slices.Clone(d.Unset), ownHeaders(in.Request.Headers)...)
		r.Message = "allowed by: " + ruleNames(d.Allow)
		return
	}
	r.Rules, r.Failed = d.Deny, d.Failed
	message := "no allow rule holds"
	if len(d.Deny) > 0 {
		message = "denied by: " + ruleNames(d.Deny)
	}
	if d.Untraced != "" {
		message += " (" + d.Untraced + ")"
	}
	a.deny(CausePolicy, message)
}

func ruleNames(rules []policy.RuleRef) string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = r.Name
	}
	return strings.Join(names, "; ")
}

// ownHeaders are the client's copies of headers that only Signet may set.
func ownHeaders(headers map[string][]string) []string {
	var out []string
	for name := range headers {
		if strings.HasPrefix(name, proxy.HeaderPrefix) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (a *answer) response() *authv3.CheckResponse {
	r := a.denied
	if a.record.Allowed || a.record.Observed {
		r = a.ok
	}
	out := r()
	out.DynamicMetadata = a.metadata
	return out
}

func (a *answer) ok() *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{HeadersToRemove: slices.Clone(a.remove)}
	for _, name := range a.withheld {
		if a.headers.Get(name) == "" {
			ok.HeadersToRemove = append(ok.HeadersToRemove, name)
		}
	}
	for name, values := range a.headers {
		ok.Headers = append(ok.Headers, header(strings.ToLower(name), values[0]))
	}
	slices.SortFunc(ok.Headers, func(x, y *corev3.HeaderValueOption) int {
		return strings.Compare(x.GetHeader().GetKey(), y.GetHeader().GetKey())
	})
	return &authv3.CheckResponse{
		Status:       &status.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
	}
}

// header replaces what the client sent of the same name.
func header(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// denied is the answer that gives the caller the id and the class, and nothing of the
// reason.
func (a *answer) denied() *authv3.CheckResponse {
	code, http := codes.PermissionDenied, typev3.StatusCode_Forbidden
	switch {
	case a.token:
		code, http = codes.Unauthenticated, typev3.StatusCode_Unauthorized
	case a.record.Cause == CauseUnavailable:
		code, http = codes.Unavailable, typev3.StatusCode_ServiceUnavailable
	case a.record.Cause != CausePolicy:
		code, http = codes.Internal, typev3.StatusCode_InternalServerError
	}
	headers := []*corev3.HeaderValueOption{
		header(proxy.HeaderDecisionID, a.record.ID),
		header(proxy.HeaderDenied, string(a.record.Cause)),
		header("content-type", "text/plain; charset=utf-8"),
	}
	if a.token {
		headers = append(headers, header("www-authenticate", `Bearer error="invalid_token"`)) // RFC 6750 3
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: http},
			Headers: headers,
			Body:    "denied (" + string(a.record.Cause) + "), decision " + a.record.ID + "\n",
		}},
	}
}
