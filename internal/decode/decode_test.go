package decode_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/internal/decode"
)

// services are all that servers of ours serve.
var services = []protoreflect.FileDescriptor{
	api.File_api_agent_proto, api.File_api_admin_proto, api.File_api_signer_proto, api.File_api_authz_proto,
	discoveryv3.File_envoy_service_discovery_v3_ads_proto, authv3.File_envoy_service_auth_v3_external_auth_proto,
	workload.File_workload_proto, grpc_reflection_v1.File_grpc_reflection_v1_reflection_proto,
}

// inputs are the messages that clients send to them.
func inputs(tb testing.TB) (all []protoreflect.MessageType) {
	tb.Helper()
	for _, file := range services {
		for s := range file.Services().Len() {
			for m := range file.Services().Get(s).Methods().Len() {
				t, err := protoregistry.GlobalTypes.FindMessageByName(file.Services().Get(s).Methods().Get(m).Input().FullName())
				if err != nil {
					tb.Fatal(err)
				}
				if !slices.Contains(all, t) {
					all = append(all, t)
				}
			}
		}
	}
	return all
}

// within is a message that may be in another, by the numbers of the fields that lead to it.
type within struct {
	path []protowire.Number
	d    protoreflect.MessageDescriptor
}

// reached are all messages that may be in d.
func reached(d protoreflect.MessageDescriptor) []within {
	seen := map[protoreflect.FullName]bool{d.FullName(): true}
	all := []within{{nil, d}}
	for i := 0; i < len(all); i++ {
		for f := range all[i].d.Fields().Len() {
			f := all[i].d.Fields().Get(f)
			if f.Message() == nil || seen[f.Message().FullName()] {
				continue
			}
			seen[f.Message().FullName()] = true
			all = append(all, within{append(slices.Clone(all[i].path), f.Number()), f.Message()})
		}
	}
	return all
}

// in is b inside of the messages that lead to it.
func (w within) in(b []byte) []byte {
	for _, n := range slices.Backward(w.path) {
		b = protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	return b
}

func prefixed(n protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
}

// many is a field so often, as small as it can be in one way or another, that the whole
// has some size bytes.
func many(f protoreflect.FieldDescriptor, size int) map[string][]byte {
	n := f.Number()
	repeat := func(b []byte) []byte { return bytes.Repeat(b, size/len(b)) }
	all := map[string][]byte{}
	switch f.Kind() {
	case protoreflect.MessageKind:
		all["empty"] = repeat(prefixed(n, nil))
	case protoreflect.StringKind, protoreflect.BytesKind:
		all["empty"], all["a byte"], all["bytes"] = repeat(prefixed(n, nil)), repeat(prefixed(n, []byte("a"))), repeat(prefixed(n, bytes.Repeat([]byte("a"), 17)))
	default:
		all["varint"] = repeat(protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), 1))
		all["fixed 32"] = repeat(protowire.AppendFixed32(protowire.AppendTag(nil, n, protowire.Fixed32Type), 1))
		all["fixed 64"] = repeat(protowire.AppendFixed64(protowire.AppendTag(nil, n, protowire.Fixed64Type), 1))
		all["packed"] = prefixed(n, make([]byte, size&^7))
	}
	if f.IsMap() {
		var entries []byte
		for i := uint32(0); len(entries) < size; i++ {
			key := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(i))
			if f.MapKey().Kind() == protoreflect.StringKind {
				key = prefixed(1, fmt.Appendf(nil, "%x", i))
			}
			entries = append(entries, prefixed(n, key)...)
		}
		all["entries"] = entries
	}
	return all
}

// alike is what fields have in common that are held in one way.
type alike struct {
	in        protoreflect.FullName
	kind      protoreflect.Kind
	of        protoreflect.FullName
	list, one bool
}

func alikeOf(f protoreflect.FieldDescriptor) alike {
	a := alike{in: f.Parent().FullName(), kind: f.Kind(), list: f.IsList(), one: f.HasPresence()}
	if f.Message() != nil {
		a.of = f.Message().FullName()
	}
	return a
}

// takes is the memory of the objects that f makes; with what it made meanwhile and
// dropped, where that is no more than enough.
func takes(enough int, f func() proto.Message) int {
	var m runtime.MemStats
	heap := func() int {
		runtime.GC()
		runtime.GC() // pools keep what they have over one
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc) //nolint:gosec // below a terabyte
	}
	runtime.ReadMemStats(&m)
	before := m.TotalAlloc
	made := f()
	runtime.ReadMemStats(&m)
	if n := int(m.TotalAlloc - before); n <= enough { //nolint:gosec // below a terabyte
		runtime.KeepAlive(made)
		return n
	}
	with := heap()
	runtime.KeepAlive(made) // until here
	return with - heap()
}

// [8 KiB / 512 KiB] a message.
func TestWhateverAMessageIsFullOfTakesNoMoreThanItWasWeighed(t *testing.T) {
	size := 8 << 10
	if os.Getenv("SOAK") != "" {
		size = 512 << 10
	}
	worst, tried, seen := 0, 0, map[alike]bool{}
	for _, input := range inputs(t) {
		for _, in := range reached(input.Descriptor()) {
			for f := range in.d.Fields().Len() {
				f := in.d.Fields().Get(f)
				if in.d.IsMapEntry() || seen[alikeOf(f)] {
					continue
				}
				seen[alikeOf(f)] = true
				for how, b := range many(f, size) {
					b := in.in(b)
					sum, err := decode.Sum(b, input.Zero().Interface())
					m := input.New().Interface()
					if err != nil {
						continue // as text where a message is
					}
					var wrong error
					took := takes(sum, func() proto.Message {
						wrong = proto.Unmarshal(b, m)
						return m
					})
					tried++
					if took > sum+4<<10 && wrong == nil {
						t.Errorf("%s full of %s (%s), %d bytes: %d bytes as objects, weighed as %d", input.Descriptor().FullName(), f.FullName(), how, len(b), took, sum)
					}
					worst = max(worst, took/len(b))
				}
			}
		}
	}
	t.Logf("%d messages of %d bytes, the worst of them %d times its size as objects", tried, size, worst)
	if worst < 2*decode.Times {
		t.Error("nothing out of proportion was tried")
	}
}

// What proto2 has beside would be taken for bytes that are kept.
func TestNoMessageOfOursHasGroupsOrExtensions(t *testing.T) {
	for _, input := range inputs(t) {
		for _, in := range reached(input.Descriptor()) {
			if in.d.ExtensionRanges().Len() > 0 {
				t.Errorf("%s: %s has extensions", input.Descriptor().FullName(), in.d.FullName())
			}
			for f := range in.d.Fields().Len() {
				if f := in.d.Fields().Get(f); f.Kind() == protoreflect.GroupKind || f.Number() > 1000 {
					t.Errorf("%s: %s is a group, or has a number that wastes memory", input.Descriptor().FullName(), f.FullName())
				}
			}
		}
	}
}

// usual are messages as they are meant, large ones.
func usual(tb testing.TB) map[string]proto.Message {
	tb.Helper()
	node := &corev3.Node{Id: "shop/web", Cluster: "web", UserAgentName: "envoy"}
	for i := range 400 {
		node.Extensions = append(node.Extensions, &corev3.Extension{Name: fmt.Sprintf("envoy.filters.http.number_%d", i), Category: "envoy.filters.http", TypeUrls: []string{"envoy.extensions.filters.http.x.v3.X"}})
	}
	for i := range 30 {
		node.ClientFeatures = append(node.ClientFeatures, fmt.Sprintf("envoy.lb.feature_%d", i))
	}
	metadata, err := structpb.NewStruct(map[string]any{"signet": map[string]any{"app": "8080", "ports": []any{1, 2, 3}, "labels": map[string]any{"a": "b", "c": true}}})
	if err != nil {
		tb.Fatal(err)
	}
	node.Metadata = metadata
	names, versions := []string{}, map[string]string{}
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("b%d", i))
		versions[fmt.Sprintf("b%d", i)] = fmt.Sprintf("%016x", i)
	}
	headers := map[string]string{}
	for i := range 100 {
		headers[fmt.Sprintf("x-%d", i)] = "1"
	}
	batch := &api.IssueRequest{}
	sign := &api.SignRequest{}
	for i := range 256 {
		batch.Requests = append(batch.Requests, &api.SVIDRequest{Entry: fmt.Sprintf("e%d", i), Csr: make([]byte, 250)})
		sign.Items = append(sign.Items, &api.SignItem{SpiffeId: fmt.Sprintf("spiffe://a/%d", i), Csr: make([]byte, 250)})
	}
	report := &api.Report{}
	for i := range 500 {
		report.Proxies = append(report.Proxies, &api.ProxyStatus{
			Name: fmt.Sprintf("n%d", i), VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: fmt.Sprintf("n%d", i)},
			Address: "10.0.0.1", Ports: []uint32{80}, EnvoyVersion: "1.40.0", Pid: 4711, State: api.ProxyStatus_READY.Enum(), StateWord: "ready",
		})
		report.Svids = append(report.Svids, &api.SVIDStatus{
			SpiffeId: fmt.Sprintf("spiffe://a/%d", i), Serial: "7a1b", NotAfter: timestamppb.Now(), NextRenewal: timestamppb.Now(), LastRotation: timestamppb.Now(),
			Consumer: api.SVIDStatus_PROXY.Enum(), ConsumerWord: "proxy:x", OutageBudget: durationpb.New(1),
		})
	}
	return map[string]proto.Message{
		"an Envoy":     &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster"},
		"names":        &discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: names},
		"versions":     &discoveryv3.DeltaDiscoveryRequest{Node: node, ResourceNamesSubscribe: names, InitialResourceVersions: versions},
		"sotw":         &discoveryv3.DiscoveryRequest{Node: node, ResourceNames: names},
		"NACK":         &discoveryv3.DeltaDiscoveryRequest{ErrorDetail: &statuspb.Status{Code: 3, Message: strings.Repeat("no ", 1000)}},
		"check":        &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Headers: headers}}}},
		"certificates": batch, "signatures": sign,
		"report": &api.SessionUp{Message: &api.SessionUp_Report{Report: report}},
	}
}

func TestMessagesThatAreMeantAreFarFromTheBound(t *testing.T) {
	for name, m := range usual(t) {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := decode.Weigh(b, m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %d bytes, %d as objects", name, len(b), sum)
		if sum > (decode.Free+decode.Times*len(b))*3/4 {
			t.Errorf("%s: %d bytes would be %d: too near to what is refused", name, len(b), sum)
		}
	}
}

func TestAMessageOutOfProportionOrTooDeepIsRefusedBeforeAnythingIsMadeOfIt(t *testing.T) {
	c := decode.New(func(any, int) { t.Error("it was decoded") })
	if _, err := decode.Weigh(prefixed(1, prefixed(9, nil)), &discoveryv3.DeltaDiscoveryRequest{}); err != nil { // what is learned of a type once
		t.Fatal(err)
	}
	deep := []byte(nil)
	for range 200 { // a list in a list
		deep = prefixed(6, prefixed(1, deep))
	}
	for what, b := range map[string][]byte{
		"524,000 extensions": prefixed(1, bytes.Repeat(prefixed(9, nil), 524_000)),
		"lists in lists":     prefixed(1, prefixed(3, prefixed(1, prefixed(2, deep)))),
		"half a field":       {0x0a},
		"the end of a group": {0x0c},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m := &discoveryv3.DeltaDiscoveryRequest{}
		err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, m)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "DeltaDiscoveryRequest of ") || m.GetNode() != nil {
			t.Errorf("%s: %v", what, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 256<<10 {
			t.Errorf("%s: %d bytes were allocated to refuse it", what, took)
		}
		t.Log(err)
	}
	if _, err := decode.Weigh(bytes.Repeat(prefixed(1, nil), 524_000), &api.IssueRequest{}); !errors.Is(err, decode.ErrTooMuch) {
		t.Errorf("a batch of 524,000: %v", err)
	}
}

type issues struct {
	api.UnimplementedAgentAPIServer
	calls atomic.Int64
}

func (s *issues) Issue(context.Context, *api.IssueRequest) (*api.IssueResponse, error) {
	s.calls.Add(1)
	return &api.IssueResponse{}, nil
}

func TestAServerRefusesWhatIsOutOfProportion(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, served := decode.NewServer(), &issues{}
	api.RegisterAgentAPIServer(s, served)
	go func() { _ = s.Serve(l) }() // until it is stopped
	defer s.Stop()
	c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // at the end
	full := &api.IssueRequest{}
	if err := proto.Unmarshal(bytes.Repeat(prefixed(1, nil), 500_000), full); err != nil {
		t.Fatal(err)
	}
	client := api.NewAgentAPIClient(c)
	if _, err := client.Issue(t.Context(), full); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), decode.ErrTooMuch.Error()) {
		t.Errorf("full of nothing: %v", err)
	}
	if _, err := client.Issue(t.Context(), &api.IssueRequest{Requests: []*api.SVIDRequest{{Entry: "a"}}}); err != nil || served.calls.Load() != 1 {
		t.Errorf("one request: %v, %d calls", err, served.calls.Load())
	}
}

// taken is what the objects of m take at least.
func taken(m protoreflect.Message) int {
	n := int(reflect.TypeOf(m.Interface()).Elem().Size()) + len(m.GetUnknown())
	one := func(f protoreflect.FieldDescriptor, v protoreflect.Value) {
		switch f.Kind() {
		case protoreflect.MessageKind:
			n += taken(v.Message())
		case protoreflect.StringKind:
			n += len(v.String())
		case protoreflect.BytesKind:
			n += len(v.Bytes())
		}
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				n += 8
				one(f.MapKey(), k.Value())
				one(f.MapValue(), v)
				return true
			})
		case f.IsList():
			for i := range v.List().Len() {
				n++
				one(f, v.List().Get(i))
			}
		default:
			one(f, v)
		}
		return true
	})
	return n
}

func FuzzWeigh(f *testing.F) {
	for _, m := range usual(f) {
		if b, err := proto.Marshal(m); err == nil && len(b) < 4<<10 {
			f.Add(b)
		}
	}
	f.Add(prefixed(1, bytes.Repeat(prefixed(9, nil), 100)))
	f.Add(protowire.AppendTag(nil, 3, protowire.StartGroupType))
	types := inputs(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, input := range types {
			sum, err := decode.Sum(b, input.Zero().Interface())
			m := input.New()
			switch wrong := proto.Unmarshal(b, m.Interface()); {
			case wrong != nil:
			case err != nil && !strings.Contains(err.Error(), "deep"):
				t.Errorf("%s: a message is refused: %v", input.Descriptor().FullName(), err)
			case err == nil && taken(m) > sum:
				t.Errorf("%s: %d bytes were weighed as %d", input.Descriptor().FullName(), taken(m), sum)
			}
		}
	})
}

func BenchmarkWeigh(b *testing.B) {
	for name, m := range usual(b) {
		text, err := proto.Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/weigh", func(b *testing.B) {
			for b.Loop() {
				if _, err := decode.Weigh(text, m); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/decode", func(b *testing.B) {
			for b.Loop() {
				if err := proto.Unmarshal(text, m.ProtoReflect().New().Interface()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
