package unixsock

import (
	"context"
	"fmt"
	"net"
	"os"
)

// NotifyReady notifies the service manager that this process is ready, where one
// asked for it: sd_notify(3), Type=notify.
func NotifyReady(ctx context.Context) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", socket)
	if err == nil {
		_, err = conn.Write([]byte("READY=1"))
		_ = conn.Close() // a datagram is sent or not
	}
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}
