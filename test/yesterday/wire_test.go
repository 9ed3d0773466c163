package yesterday

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "signet.example/api" // its messages are registered
)

// TestNoFieldOfTheReleaseBeforeMeansSomethingElse compares every message, enum and
// service with those of the release before. A number keeps its type for ever: a field
// may be renamed, moved into a oneof or joined by others, and one that goes leaves its
// number reserved. So what either release says, the other reads as it was meant.
func TestNoFieldOfTheReleaseBeforeMeansSomethingElse(t *testing.T) {
	compared := 0
	messages(t).RangeFiles(func(f protoreflect.FileDescriptor) bool {
		switch f.Path() {
		case "api/authz.proto", "api/policychild.proto": // between processes of one program
			return true
		}
		if f.Package() != "signet.v1alpha1" {
			return true
		}
		for i := range f.Messages().Len() {
			compareMessage(t, f.Messages().Get(i), &compared)
		}
		for i := range f.Enums().Len() {
			compareEnum(t, f.Enums().Get(i))
		}
		for i := range f.Services().Len() {
			compareService(t, f.Services().Get(i))
		}
		return true
	})
	if compared < 200 {
		t.Errorf("only %d fields were compared", compared)
	}
}

// now is today's descriptor of that name.
func now[D protoreflect.Descriptor](t *testing.T, then D) (D, bool) {
	t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(then.FullName())
	today, ok := d.(D)
	if err != nil || !ok {
		t.Errorf("%s is gone: whoever is of the release before still says it", then.FullName())
	}
	return today, ok && err == nil
}

func compareMessage(t *testing.T, then protoreflect.MessageDescriptor, compared *int) {
	t.Helper()
	today, ok := now(t, then)
	if !ok || then.IsMapEntry() {
		return
	}
	for i := range then.Fields().Len() {
		was := then.Fields().Get(i)
		*compared++
		is := today.Fields().ByNumber(was.Number())
		switch {
		case is == nil && !today.ReservedRanges().Has(was.Number()):
			t.Errorf("%s (%d) is gone, and its number is not reserved", was.FullName(), was.Number())
		case is == nil:
		case was.Kind() != is.Kind(), was.Cardinality() != is.Cardinality(), was.IsMap() != is.IsMap():
			t.Errorf("%s (%d) was %s %s and %s is %s %s: give it a number of its own, and send both", was.FullName(), was.Number(),
				was.Cardinality(), was.Kind(), is.Name(), is.Cardinality(), is.Kind())
		case was.IsMap():
			if was.MapKey().Kind() != is.MapKey().Kind() || was.MapValue().Kind() != is.MapValue().Kind() {
				t.Errorf("%s was a map of other types", was.FullName())
			}
		case was.Message() != nil && was.Message().FullName() != is.Message().FullName():
			t.Errorf("%s was %s and is %s", was.FullName(), was.Message().FullName(), is.Message().FullName())
		}
	}
	for i := range then.Messages().Len() {
		compareMessage(t, then.Messages().Get(i), compared)
	}
	for i := range then.Enums().Len() {
		compareEnum(t, then.Enums().Get(i))
	}
}

func compareEnum(t *testing.T, then protoreflect.EnumDescriptor) {
	t.Helper()
	today, ok := now(t, then)
	if !ok {
		return
	}
	for i := range then.Values().Len() {
		was := then.Values().Get(i)
		if is := today.Values().ByNumber(was.Number()); is == nil || is.Name() != was.Name() {
			t.Errorf("%s (%d) is gone or means something else", was.FullName(), was.Number())
		}
	}
}

func compareService(t *testing.T, then protoreflect.ServiceDescriptor) {
	t.Helper()
	today, ok := now(t, then)
	if !ok {
		return
	}
	for i := range then.Methods().Len() {
		was := then.Methods().Get(i)
		is := today.Methods().ByName(was.Name())
		if is == nil || is.Input().FullName() != was.Input().FullName() || is.Output().FullName() != was.Output().FullName() ||
			is.IsStreamingClient() != was.IsStreamingClient() || is.IsStreamingServer() != was.IsStreamingServer() {
			t.Errorf("%s is gone or is another call", was.FullName())
		}
	}
}
