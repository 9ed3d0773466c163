package api_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"signet.example/api"
)

// An agent and a command line of the version before have words where there are
// enums now: field 10 of a proxy, 6 of a certificate's status, 3 of a report.
func TestAPeerFromBeforeTheEnumsIsUnderstoodAndUnderstands(t *testing.T) {
	text := func(field protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), s)
	}
	before := append(append(text(1, string(text(10, "backoff"))), text(2, string(text(6, "proxy:web")))...), text(3, "legacy")...)
	var r api.Report
	if err := proto.Unmarshal(before, &r); err != nil {
		t.Fatal(err)
	}
	api.Reconcile(&r)
	if p, s := r.GetProxies()[0].GetState(), r.GetSvids()[0].GetConsumer(); p != api.ProxyStatus_BACKOFF || s != api.SVIDStatus_PROXY || r.GetPeerMode() != api.Report_LEGACY {
		t.Errorf("proxy %s, certificate of %s, peers by %s", p, s, r.GetPeerMode())
	}

	now := &api.Report{
		Proxies:  []*api.ProxyStatus{{State: api.ProxyStatus_BACKOFF.Enum()}},
		Svids:    []*api.SVIDStatus{{Consumer: api.SVIDStatus_PROXY.Enum(), ConsumerWord: "proxy:web"}},
		PeerMode: api.Report_LEGACY.Enum(),
	}
	api.Reconcile(now)
	if !proto.Equal(now, &r) {
		t.Errorf("written now: %v\nread from before: %v", now, &r)
	}
}

func TestTheEnumHoldsAndAnUnknownOneIsNone(t *testing.T) {
	for _, c := range []struct {
		state api.ProxyStatus_State
		word  string

		want api.ProxyStatus_State
		said string
	}{
		{api.ProxyStatus_READY, "draining", api.ProxyStatus_READY, "ready"},
		{api.ProxyStatus_UNSERVED, "", api.ProxyStatus_UNSERVED, "unserved"},
		{99, "frozen", api.ProxyStatus_UNSPECIFIED, "frozen"}, // by a newer agent
		{api.ProxyStatus_UNSPECIFIED, "unspecified", api.ProxyStatus_UNSPECIFIED, "unspecified"},
		{api.ProxyStatus_UNSPECIFIED, "", api.ProxyStatus_UNSPECIFIED, ""},
	} {
		p := &api.ProxyStatus{State: c.state.Enum(), StateWord: c.word}
		api.Reconcile(p)
		if p.GetState() != c.want || p.GetStateWord() != c.said {
			t.Errorf("%s and %q became %s and %q", c.state, c.word, p.GetState(), p.GetStateWord())
		}
		again := proto.CloneOf(p)
		if api.Reconcile(again); !proto.Equal(p, again) {
			t.Errorf("%v is not reconciled: %v", p, again)
		}
	}
}

// Scripts read the words of `-o json` as they were before there were enums.
func TestMessagesInWordsLookAsBeforeTheEnums(t *testing.T) {
	c := &api.Cert{State: api.Cert_RESERVED.Enum()}
	api.Reconcile(c)
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(api.InWords(c))
	if err != nil {
		t.Fatal(err)
	}
	want := &api.Cert{StateWord: "reserved"}
	wantRaw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(want)
	if err != nil || string(raw) != string(wantRaw) {
		t.Errorf("%s, want %s; %v", raw, wantRaw, err)
	}
	// Every enum of what agents and operators are told has a word beside it.
	for _, file := range []protoreflect.FileDescriptor{api.File_api_admin_proto, api.File_api_agent_proto} {
		for i := range file.Messages().Len() {
			fields := file.Messages().Get(i).Fields()
			for j := range fields.Len() {
				f := fields.Get(j)
				if f.Enum() == nil {
					continue
				}
				word := fields.ByName(f.Name() + "_word")
				if word == nil || !f.HasPresence() || word.JSONName() == string(word.Name()) {
					t.Errorf("%s is shown as a number's name", f.FullName())
				}
			}
		}
	}
}
