package plain_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/internal/plain"
)

func TestEveryStringOfAMessageIsPlain(t *testing.T) {
	m, err := structpb.NewStruct(map[string]any{
		"a": "x\x1b[2J", "list": []any{"y\u202e", "good"}, "b\x07": "its name cannot be shown", "number": 1.0,
		"deep": map[string]any{"c": "z\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	plain.Message(m)
	f := m.GetFields()
	for at, got := range map[string]string{
		"a": f["a"].GetStringValue(), "list": f["list"].GetListValue().GetValues()[0].GetStringValue(), "deep": f["deep"].GetStructValue().GetFields()["c"].GetStringValue(),
	} {
		if got == "" || got != plain.Text(got) {
			t.Errorf("%s: %q", at, got)
		}
	}
	if _, ok := f["b\x07"]; ok || len(f) != 4 || f["number"].GetNumberValue() != 1 || f["list"].GetListValue().GetValues()[1].GetStringValue() != "good" {
		t.Errorf("%v", m)
	}
}

func TestATimeThatIsNoneIsNotInTheWayOfTheRest(t *testing.T) {
	for _, m := range []proto.Message{
		&timestamppb.Timestamp{Seconds: 1 << 60}, &timestamppb.Timestamp{Nanos: -1}, &durationpb.Duration{Seconds: 1, Nanos: -1}, timestamppb.Now(),
	} {
		valid := m.(interface{ IsValid() bool }).IsValid()
		if _, err := protojson.Marshal(m); (err == nil) != valid {
			t.Fatalf("%v: the control: %v", m, err)
		}
		had := proto.Clone(m)
		plain.Message(m)
		if _, err := protojson.Marshal(m); err != nil || valid != proto.Equal(m, had) {
			t.Errorf("%v became %v: %v", had, m, err)
		}
	}
}
