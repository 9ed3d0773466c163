package invariants

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// visited is one message found by walk.
type visited struct {
	path    string          // for people
	m       proto.Message   // never an Any
	parents []proto.Message // from the root to m's parent; Anys are left out
}

// walk visits m and every message in it, through Any as well, parents first.
// An Any that cannot be opened is reported to opaque: nobody may say that all
// is well of what nobody has read.
func walk(m proto.Message, visit func(visited), opaque func(path, typeURL string)) {
	w := walker{visit: visit, opaque: opaque}
	w.message(visited{path: string(m.ProtoReflect().Descriptor().Name()), m: m})
}

type walker struct {
	visit  func(visited)
	opaque func(path, typeURL string)
}

func (w walker) message(v visited) {
	if a, ok := v.m.(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			w.opaque(v.path, a.GetTypeUrl())
			return
		}
		v.m = inner
		w.message(v)
		return
	}
	w.visit(v)
	parents := append(slices.Clip(v.parents), v.m)
	v.m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		w.field(visited{path: v.path + "." + string(f.Name()), parents: parents}, f, value)
		return true
	})
}

// field visits the messages of one field; v has the path and the parents.
func (w walker) field(v visited, f protoreflect.FieldDescriptor, value protoreflect.Value) {
	at := func(path string, m protoreflect.Message) {
		w.message(visited{path: path, m: m.Interface(), parents: v.parents})
	}
	switch {
	case f.IsMap():
		if f.MapValue().Message() == nil {
			return
		}
		value.Map().Range(func(k protoreflect.MapKey, m protoreflect.Value) bool {
			at(fmt.Sprintf("%s[%s]", v.path, k), m.Message())
			return true
		})
	case f.Message() == nil:
	case f.IsList():
		for i := range value.List().Len() {
			at(fmt.Sprintf("%s[%d]", v.path, i), value.List().Get(i).Message())
		}
	default:
		at(v.path, value.Message())
	}
}

// parent returns the nearest parent of type M.
func parent[M proto.Message](v visited) (M, bool) {
	for _, p := range slices.Backward(v.parents) {
		if m, ok := p.(M); ok {
			return m, true
		}
	}
	var none M
	return none, false
}
