package api

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// wordSuffix ends the name of the field that says in words what an enum beside it says.
const wordSuffix = "_word"

// Reconcile makes the enums of a message and the words beside them say the same,
// before it is sent and when it was received. The enum holds where it is set; a peer
// from before it has the word alone. A newer peer's value that is not known here is
// none, and its word stays to be shown. A message that is reconciled is not written to.
func Reconcile(m proto.Message) {
	eachWord(m.ProtoReflect(), func(m protoreflect.Message, enum, word protoreflect.FieldDescriptor) {
		values := enum.Enum().Values()
		said, _, _ := strings.Cut(m.Get(word).String(), ":")
		if m.Has(enum) {
			if v := values.ByNumber(m.Get(enum).Enum()); v == nil || v.Number() == 0 {
				m.Clear(enum)
			} else if said != wordOf(v) {
				m.Set(word, protoreflect.ValueOfString(wordOf(v)))
			}
			return
		}
		for i := 1; i < values.Len(); i++ { // the first is none
			if v := values.Get(i); said == wordOf(v) {
				m.Set(enum, protoreflect.ValueOfEnum(v.Number()))
			}
		}
	})
}

// InWords returns a copy of a message without the enums that have words beside them.
func InWords(m proto.Message) proto.Message {
	m = proto.Clone(m)
	eachWord(m.ProtoReflect(), func(m protoreflect.Message, enum, _ protoreflect.FieldDescriptor) { m.Clear(enum) })
	return m
}

// Word is an enum's value in words.
func Word(e protoreflect.Enum) string {
	if v := e.Descriptor().Values().ByNumber(e.Number()); v != nil && v.Number() != 0 {
		return wordOf(v)
	}
	return ""
}

func wordOf(v protoreflect.EnumValueDescriptor) string {
	return strings.ToLower(strings.ReplaceAll(string(v.Name()), "_", "-"))
}

// eachWord calls do with each enum, in the message and in those that it holds, that
// has a word beside it.
func eachWord(m protoreflect.Message, do func(m protoreflect.Message, enum, word protoreflect.FieldDescriptor)) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Enum() != nil {
			if word := fields.ByName(f.Name() + wordSuffix); word != nil {
				do(m, f, word)
			}
			continue
		}
		switch {
		case f.Message() == nil || f.IsMap() || !m.Has(f):
		case f.IsList():
			for j, list := 0, m.Get(f).List(); j < list.Len(); j++ {
				eachWord(list.Get(j).Message(), do)
			}
		default:
			eachWord(m.Get(f).Message(), do)
		}
	}
}

// ReconcileAnswer reconciles what a client receives.
func ReconcileAnswer(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := call(ctx, method, req, reply, conn, opts...)
	if m, ok := reply.(proto.Message); ok && err == nil {
		Reconcile(m)
	}
	return err
}

// ReconcileStream reconciles each message that a client receives on a stream.
func ReconcileStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, conn, method, opts...)
	return reconciled{s}, err
}

type reconciled struct{ grpc.ClientStream }

// RecvMsg implements grpc.ClientStream.
func (r reconciled) RecvMsg(m any) error {
	err := r.ClientStream.RecvMsg(m)
	if m, ok := m.(proto.Message); ok && err == nil {
		Reconcile(m)
	}
	return err
}
