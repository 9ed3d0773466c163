package docs

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
	"signet.example/test/parts"
)

// likely are values by the end of a path, the longest that fits: where the model allows anything.
var likely = map[string]string{ //nolint:gosec // no credentials
	"egressFilter.type": "DROP_ALL", "prefix.value": "/b/", "match.prefix": "/a/", "path.exact": "/a", "match.path.exact": "/a", "path.regex": "/a.*", "rewrite.path.exact": "/b",
	"healthCheck.path": "/ping", "healthCheck.protocol": "http", "protocol": "http", "hostname.exact": "a.example", "hostname.suffix": ".example", "dns.hostname": "a.example",
	"sds.secretName": "spiffe://example.org/m/n", "trust.sds.secretName": "spiffe://example.org", "subjectAlternativeNames.match.exact[]": "spiffe://example.org/m/n",
	"file.path": "/dev/stdout", "format.text": "%PROTOCOL%\n", "json[].value": "%PROTOCOL%", "virtualServiceName": "s.example", "method": "GET", "methodName": "Do", "serviceName": "a.b.C",
	"certificateChain": "/tls/chain.pem", "privateKey": "/tls/key.pem", "certificateArn": "arn:aws:acm:eu-west-1:1:certificate/x", "certificateAuthorityArns[]": "arn:aws:acm-pca:eu-west-1:1:certificate-authority/x",
	"httpRetryEvents[]": "server-error", "tcpRetryEvents[]": "connection-error", "defaultTargetHostname": "ENABLED", "defaultPrefix": "DISABLED", "mode": "PERMISSIVE",
}

// maker makes objects of App Mesh's API model that have one field.
type maker struct {
	shapes map[string]shape
	field  string
}

// value is the least of a shape that has the field of path, which is as far as it has come, and
// goes on with rest.
func (m maker) value(name, path, rest string) any {
	s := m.shapes[name]
	switch s.Type {
	case "structure":
		made := map[string]any{}
		for member := range m.members(name, rest) {
			inner := ""
			if after, ok := strings.CutPrefix(rest, member); ok && (after == "" || after[0] == '.' || after[0] == '[') {
				inner = strings.TrimPrefix(after, ".")
			}
			made[member] = m.value(s.Members[member].Shape, strings.TrimPrefix(path+"."+member, "."), inner)
		}
		return made
	case "list":
		return []any{m.value(s.Member.Shape, path+"[]", strings.TrimPrefix(strings.TrimPrefix(rest, "[]"), "."))}
	case "integer", "long":
		if strings.HasSuffix(path, "range.end") {
			return 2 // exclusive
		}
		return max(s.Min, 1)
	case "boolean":
		return true
	}
	best := ""
	for end := range likely {
		if strings.HasSuffix("."+path, "."+end) && len(end) > len(best) {
			best = end
		}
	}
	switch {
	case best != "":
		return likely[best]
	case len(s.Enum) > 0:
		return s.Enum[0]
	}
	return "x"
}

// members are what a structure has: what the path asks for, what is required, one of a union.
func (m maker) members(name, rest string) map[string]bool {
	s, has := m.shapes[name], map[string]bool{}
	for member := range s.Members {
		if after, ok := strings.CutPrefix(rest, member); ok && (after == "" || after[0] == '.' || after[0] == '[') {
			has[member] = true
		}
	}
	if s.Union {
		if len(has) == 0 {
			has[prefer(s, "sds", "acm", "dns", "http", "exact")] = true
		}
		return has
	}
	for _, member := range s.Required {
		has[member] = true
	}
	var needs []string // which the model does not say
	switch {
	case name == "Duration":
		needs = []string{"unit", "value"}
	case strings.HasSuffix(name, "PathMatch") && len(has) == 0:
		needs = []string{"exact"}
	case name == "MatchRange":
		needs = []string{"start", "end"}
	case strings.HasSuffix(name, "RouteMatch") && strings.Contains(m.field, "rewrite.path"):
		needs = []string{"path"}
	case strings.HasSuffix(name, "RouteMatch") && !has["prefix"] && !has["path"]:
		needs = []string{prefer(s, "prefix", "serviceName")}
	case strings.HasSuffix(name, "RetryPolicy") && !has["tcpRetryEvents"] && !has["grpcRetryEvents"]:
		needs = []string{"httpRetryEvents"}
	case strings.HasSuffix(name, "RouteSpec") && rest == "priority":
		needs = []string{"httpRoute"}
	}
	for _, n := range needs {
		has[n] = true
	}
	return has
}

// prefer is the first of these that a structure has, else any.
func prefer(s shape, names ...string) string {
	for _, n := range names {
		if _, ok := s.Members[n]; ok {
			return n
		}
	}
	return slices.Min(slices.Collect(maps.Keys(s.Members)))
}

// protocolOf is the protocol that a field is of.
func protocolOf(path string) string {
	for _, p := range []string{"tcp", "http2", "grpc"} {
		if strings.Contains(path, "."+p+".") || strings.Contains(path, " "+p+"Route.") {
			return p
		}
	}
	return "http"
}

// An object is made for each field, with as little else as is allowed.
func TestWhatTheTableOfFieldsCallsRefusedIsRefusedAndNothingElseIs(t *testing.T) {
	content, err := os.ReadFile(parts.Shared(t, "appmesh", "model.json"))
	if err != nil {
		t.Fatal(err)
	}
	var model struct {
		Shapes map[string]shape `json:"shapes"`
	}
	if err := json.Unmarshal(content, &model); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(read(t, "docs", "APPMESH.md"), fieldTable)
	table, _, _ = strings.Cut(table, "\n## ")
	tried := 0
	for _, row := range pieces(table, true) {
		for _, path := range expand(strings.Trim(row.cells[0], "`")) {
			kind, rest, _ := strings.Cut(path, " ")
			tried++
			why := maker{model.Shapes, path}.refused(t, kind, rest)
			if says := strings.HasPrefix(row.cells[1], "refused"); says != (why != "") {
				t.Errorf("%s: the table says refused: %t; it is refused for: %q", path, says, why)
			}
		}
	}
	if tried < 262 {
		t.Errorf("%d fields were tried", tried)
	}
}

// refused is why an object with a field is not applied, "" if it is.
func (m maker) refused(t *testing.T, kind, rest string) string {
	t.Helper()
	input := map[string]any{"meshName": "m", "spec": m.value(kind+"Spec", "", rest), strings.ToLower(kind[:1]) + kind[1:] + "Name": "n"}
	protocol := protocolOf(m.field)
	if kind == "VirtualService" {
		input["virtualServiceName"] = "n.example"
	}
	inputs := []any{input}
	switch kind {
	case "Route": // comes into its router
		input["virtualRouterName"] = "r"
		inputs = append(inputs, map[string]any{"meshName": "m", "virtualRouterName": "r", "spec": map[string]any{
			"listeners": []any{map[string]any{"portMapping": map[string]any{"port": 1, "protocol": protocol}}},
		}})
	case "GatewayRoute":
		input["virtualGatewayName"] = "g"
	}
	text, err := json.Marshal(inputs)
	if err != nil {
		t.Fatal(err)
	}
	if protocol != "http" && strings.Contains(m.field, "listeners[]") {
		text = []byte(strings.Replace(string(text), `"protocol":"http"`, `"protocol":"`+protocol+`"`, 1))
	}
	report := importer.Read([]dialect.File{{Name: "f.json", Content: text}}, importer.Options{Mesh: "m"})
	for _, o := range report.Objects {
		if o.State == importer.Complete {
			continue
		}
		var all []string
		for _, f := range report.Findings {
			if f.Outcome == dialect.Refused || f.Outcome == dialect.Missing {
				all = append(all, f.String())
			}
		}
		return string(o.State) + ": " + strings.Join(all, "; ") + " " + string(text)
	}
	if len(report.Objects) == 0 {
		return "no object: " + string(text)
	}
	return ""
}
