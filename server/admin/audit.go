package admin

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/server/fault"
)

// Trail is the audit trail. A row is durable on return.
type Trail interface {
	Audit(ctx context.Context, actor, action, detail string) error
}

// unary audits a call before it is made, and its outcome. A call fails if its audit
// row cannot be written.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := methodName(info.FullMethod)
	if !recordsItself(req) {
		if err := s.intent(ctx, method, req); err != nil {
			return nil, fault.ToOperator(err)
		}
	}
	resp, err := next(ctx, req)
	if m, ok := resp.(proto.Message); ok && err == nil {
		api.Reconcile(m)
	}
	err = fault.ToOperator(err)
	s.outcome(ctx, method, req, err)
	return resp, err
}

// recordsItself reports whether a request is an apply, which is in the audit trail by
// the transaction that makes it: there is never one without the other, and a row of its own
// before would be one more wait for the disk.
func recordsItself(req any) bool {
	r, ok := req.(*api.ApplyRequest)
	return ok && !r.GetDryRun()
}

// stream audits a call of a stream as unary does: before its handler has what is asked, which is
// the first message, there is a row of it.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	method := methodName(info.FullMethod)
	asked := &askedStream{ServerStream: ss, intent: func(req any) error { return s.intent(ss.Context(), method, req) }}
	err := fault.ToOperator(next(srv, asked))
	s.outcome(ss.Context(), method, asked.req, err)
	return err
}

// askedStream is a stream of which the first message is audited as it is received.
type askedStream struct {
	grpc.ServerStream

	intent func(req any) error
	req    any // the first message
}

// RecvMsg implements grpc.ServerStream.
func (a *askedStream) RecvMsg(m any) error {
	if err := a.ServerStream.RecvMsg(m); err != nil || a.req != nil {
		return err
	}
	a.req = m
	return a.intent(m)
}

func (s *Server) intent(ctx context.Context, method string, req any) error {
	actor, err := actorOf(ctx)
	if err != nil {
		return err
	}
	if err := s.cfg.Trail.Audit(ctx, actor, method, describe(req)); err != nil {
		s.cfg.Metrics.AuditErrors.Inc()
		return fmt.Errorf("%w: the audit row cannot be written, so nothing was done: %w", fault.Unavailable, err)
	}
	return nil
}

func (s *Server) outcome(ctx context.Context, method string, req any, err error) {
	code := status.Code(err)
	s.cfg.Metrics.Calls.WithLabelValues(method, code.String()).Inc()
	if err == nil {
		return
	}
	if actor, actorErr := actorOf(ctx); actorErr == nil {
		s.cfg.Note(ctx, actor, method, strings.TrimSpace(describe(req)+" failed: "+code.String()))
	}
	s.cfg.Log.InfoContext(ctx, "admin call failed", slog.String("method", method), slog.Any("err", err))
}

func methodName(full string) string { return full[strings.LastIndexByte(full, '/')+1:] }

// describe is a request as an audit row has it: what it names, never what it holds. What it
// holds is bytes, and fields that have debug_redact. Switches come first.
func describe(req any) string {
	m, ok := req.(proto.Message)
	if !ok {
		return ""
	}
	var switches, named []string
	r := m.ProtoReflect()
	for i := range r.Descriptor().Fields().Len() {
		f := r.Descriptor().Fields().Get(i)
		if options, ok := f.Options().(*descriptorpb.FieldOptions); ok && options.GetDebugRedact() {
			continue
		}
		switch v := r.Get(f); {
		case f.IsList() && v.List().Len() == 0:
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			named = append(named, describeList(f.Message().Fields(), v.List())...)
		case f.Cardinality() == protoreflect.Repeated:
		case f.Kind() == protoreflect.BoolKind:
			switches = append(switches, fmt.Sprintf("%s=%t", f.Name(), v.Bool()))
		case f.Kind() == protoreflect.StringKind:
			named = append(named, fmt.Sprintf("%s=%q", f.Name(), plain.Text(v.String())))
		case f.Kind() == protoreflect.EnumKind:
			if e := f.Enum().Values().ByNumber(v.Enum()); e != nil && r.Has(f) {
				switches = append(switches, fmt.Sprintf("%s=%s", f.Name(), e.Name()))
			}
		case f.Kind() == protoreflect.MessageKind:
			if d, ok := v.Message().Interface().(*durationpb.Duration); ok {
				named = append(named, fmt.Sprintf("%s=%s", f.Name(), d.AsDuration()))
			} else if text := describe(v.Message().Interface()); r.Has(f) && text != "" {
				named = append(named, text)
			}
		}
	}
	return strings.Join(append(switches, named...), " ")
}

// describeList is the texts of a list of messages, by the field that each has them in:
// files=["a.yaml" "b.yaml"].
func describeList(fields protoreflect.FieldDescriptors, list protoreflect.List) (named []string) {
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.StringKind || f.IsList() {
			continue
		}
		texts := make([]string, 0, list.Len())
		for j := range list.Len() {
			texts = append(texts, plain.Text(list.Get(j).Message().Get(f).String()))
		}
		named = append(named, fmt.Sprintf("%ss=%q", f.Name(), texts))
	}
	return named
}
