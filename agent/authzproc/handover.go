package authzproc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/internal/child"
	"signet.example/internal/unixsock"
)

// The descriptors that the authz process finds open.
const (
	controlFD = child.FirstFile + iota // gRPC of api.AuthzControl; the authz process serves it
	passingFD                          // accepted ext_authz connections, with SCM_RIGHTS
	journalFD                          // memory: what is being evaluated
)

// handover is the message beside a passed connection: who is at its other end.
type handover struct {
	// Destination is the SPIFFE ID whose proxy the peer was attested to be.
	Destination string `json:"destination"`
	// Proxy names it in records.
	Proxy string `json:"proxy"`
	// Grant numbers what it was attested for; AuthzConfig names those that are no more.
	Grant uint64 `json:"grant"`
}

// maxHandover is more than any handover has.
const maxHandover = 8192

// pass hands c's descriptor to the process behind over. The caller keeps c and
// closes it.
func pass(over, c *net.UnixConn, h handover) error {
	message, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("hand over a connection: %w", err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("hand over a connection: %w", err)
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		// A process that does not take its connections must not hold up the others.
		if sent = over.SetWriteDeadline(time.Now().Add(time.Second)); sent == nil {
			_, _, sent = over.WriteMsgUnix(message, unix.UnixRights(int(fd)), nil)
		}
	})
	if err = errors.Join(err, sent); err != nil {
		return fmt.Errorf("hand over a connection: %w", err)
	}
	return nil
}

// receive takes the next connection from over. A message that is not as it must
// be costs itself: its descriptors are closed.
func receive(over *net.UnixConn) (*net.UnixConn, handover, error) {
	var h handover
	message, rights := make([]byte, maxHandover), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, _, err := over.ReadMsgUnix(message, rights)
	if err != nil {
		return nil, h, fmt.Errorf("%w: %w", errHandoverEnded, err)
	}
	if n == 0 && oobn == 0 {
		return nil, h, errHandoverEnded
	}
	fds, err := descriptors(rights[:oobn])
	if err == nil && (len(fds) != 1 || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0) {
		err = fmt.Errorf("%d descriptors, flags %#x", len(fds), flags)
	}
	if err == nil {
		err = json.Unmarshal(message[:n], &h)
	}
	if err != nil {
		for _, fd := range fds {
			_ = unix.Close(fd) // it was never used
		}
		return nil, h, fmt.Errorf("handed-over connection: %w", err)
	}
	unix.CloseOnExec(fds[0])
	c, err := unixsock.FromFile(os.NewFile(uintptr(fds[0]), "ext_authz connection"))
	return c, h, err
}

// errHandoverEnded means that no more connections will come.
var errHandoverEnded = errors.New("the agent hands over no more connections")

func descriptors(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return all, err
		}
		all = append(all, fds...)
	}
	return all, nil
}

// handed is a listener whose connections come from elsewhere.
type handed struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHanded() *handed {
	return &handed{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give passes c to whoever accepts; it closes c where nobody does any more.
func (h *handed) give(ctx context.Context, c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close() // nobody reads it
	case <-ctx.Done():
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handed) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "handed over"} }
