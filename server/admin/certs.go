package admin

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/server/fault"
)

// certsBatch bounds one message of a long list; watchEvery is how often a watch
// looks when no report wakes it (an expiry is nobody's event).
const (
	certsBatch = 500
	watchEvery = time.Second
)

// Certs lists what is served now, as the agents report it, and with all set
// everything that the log has. With watch it goes on with what changes.
func (s *Server) Certs(req *api.CertsRequest, stream grpc.ServerStreamingServer[api.CertsResponse]) error {
	ctx := stream.Context()
	shown := map[string]*api.Cert{}
	var past history
	for first := true; ; first = false {
		wake := s.cfg.Sessions.Wait()
		if req.GetAll() { // with all that the log has a look is dear, and has its time
			wake = nil
		}
		list, err := s.certs(ctx, req.GetAll(), &past)
		if err != nil {
			return fault.ToOperator(err)
		}
		if err := sendCerts(stream, changedCerts(shown, list), first); err != nil {
			return err
		}
		if !req.GetWatch() {
			return nil
		}
		maps.DeleteFunc(shown, func(_ string, c *api.Cert) bool { return !c.GetNotAfter().AsTime().After(s.cfg.Clock()) })
		for _, c := range list {
			shown[certKey(c)] = c
		}
		timer := time.NewTimer(watchEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.cfg.Stopping:
			timer.Stop()
			return nil
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// sendCerts sends the list in batches; the first answer is sent even if empty.
func sendCerts(stream grpc.ServerStreamingServer[api.CertsResponse], list []*api.Cert, first bool) error {
	if len(list) == 0 {
		if !first {
			return nil
		}
		return stream.Send(&api.CertsResponse{})
	}
	for batch := range slices.Chunk(list, certsBatch) {
		if err := stream.Send(&api.CertsResponse{Certs: batch}); err != nil {
			return err
		}
	}
	return nil
}

func certKey(c *api.Cert) string {
	return c.GetSerial() + " " + c.GetConsumerWord() + " " + c.GetNode()
}

func changedCerts(shown map[string]*api.Cert, list []*api.Cert) []*api.Cert {
	return slices.DeleteFunc(slices.Clone(list), func(c *api.Cert) bool { return proto.Equal(shown[certKey(c)], c) })
}

// history is what the log had when it was read to its end the last time.
type history struct {
	known bool
	read  uint64    // how many records it had, or fewer
	until time.Time // when the first of the certificates that were good then ends, zero for none
	certs []*api.Cert
}

// historyNow is past, read anew where the log has grown or a certificate has ended since.
func (s *Server) historyNow(ctx context.Context, past *history) error {
	read, now := s.cfg.Certificates.Read(), s.cfg.Clock()
	if past.known && past.read == read && (past.until.IsZero() || now.Before(past.until)) {
		return nil
	}
	next := history{known: true, read: read}
	err := s.cfg.Certificates.History(ctx, func(c *api.Cert) error {
		if end := c.GetNotAfter().AsTime(); c.GetState() == api.Cert_ISSUED && (next.until.IsZero() || end.Before(next.until)) {
			next.until = end
		}
		next.certs = append(next.certs, c)
		return nil
	})
	if err == nil {
		*past = next
	}
	return err
}

// certs is the list once: serving ones first, by identity.
func (s *Server) certs(ctx context.Context, all bool, past *history) ([]*api.Cert, error) {
	serving := s.serving()
	if !all {
		return serving, nil
	}
	seen := map[string]bool{}
	for _, c := range serving {
		seen[c.GetSerial()] = true
	}
	if err := s.historyNow(ctx, past); err != nil {
		return serving, err
	}
	for _, c := range past.certs {
		if !seen[c.GetSerial()] {
			serving = append(serving, c)
		}
	}
	return serving, nil
}

// serving lists what connected agents say they serve, with what the log knows.
func (s *Server) serving() []*api.Cert {
	var list []*api.Cert
	for _, st := range s.cfg.Fleet.All() {
		if !st.Connected() {
			continue
		}
		for _, v := range st.Report.GetSvids() {
			c := &api.Cert{
				SpiffeId: v.GetSpiffeId(), Node: st.SPIFFE, Serial: v.GetSerial(), NotAfter: v.GetNotAfter(),
				NextRenewal: v.GetNextRenewal(), State: api.Cert_SERVING.Enum(), Consumer: v.Consumer, ConsumerWord: v.GetConsumerWord(),
			}
			if r := s.cfg.Certificates.Of(v.GetSerial()); r != nil {
				c.NotBefore = r.GetNotBefore()
			}
			api.Reconcile(c)
			list = append(list, c)
		}
	}
	slices.SortStableFunc(list, func(a, b *api.Cert) int {
		return strings.Compare(a.GetSpiffeId()+" "+a.GetNode()+" "+a.GetConsumerWord(), b.GetSpiffeId()+" "+b.GetNode()+" "+b.GetConsumerWord())
	})
	return list
}
