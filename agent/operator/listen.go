package operator

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"

	"signet.example/agent/local"
	"signet.example/internal/unixsock"
)

// Listeners are the sockets. The zero value has none.
type Listeners struct {
	Process net.Listener
	Stop    net.Listener // nil on a host, where the service manager tells
}

// Listen opens them in the folder of the agent's sockets.
func Listen(ctx context.Context, socketDir string, task bool) (Listeners, error) {
	var l Listeners
	var err error
	if l.Process, err = listen(ctx, socketDir, local.ProcessSocket); err == nil && task {
		l.Stop, err = listen(ctx, socketDir, local.StopSocket)
	}
	if err != nil {
		l.Close()
		return Listeners{}, err
	}
	return l, nil
}

func listen(ctx context.Context, socketDir, name string) (net.Listener, error) {
	l, err := unixsock.Listen(ctx, filepath.Join(socketDir, name), 0o600)
	if err != nil {
		return nil, err
	}
	return ownersOnly{l}, nil
}

// Close closes them; one that was served is closed already.
func (l Listeners) Close() {
	for _, one := range []net.Listener{l.Process, l.Stop} {
		if one != nil {
			_ = one.Close() // see above
		}
	}
}

// ownersOnly takes connections of root and this user alone. The file's mode says the same, to
// whom it is a file's.
type ownersOnly struct{ net.Listener }

// Accept implements net.Listener.
func (l ownersOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p, err := unixsock.PeerOf(c)
		if err == nil && !mayAsk(p.UID, os.Geteuid()) {
			err = errors.New("another user's")
		}
		if err == nil {
			return c, nil
		}
		_ = c.Close() // nothing was said
	}
}

func mayAsk(uid uint32, own int) bool { return uid == 0 || int64(uid) == int64(own) }
