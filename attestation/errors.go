package attestation

import "errors"

var (
	// ErrGone is returned when the process that connected has exited. Its pid
	// may already be another's.
	ErrGone = errors.New("peer process is gone")
	// ErrExec is returned when the process has executed a program since it
	// connected: what was attested then is not what runs now.
	ErrExec = errors.New("peer process has executed another program since it connected")
	// ErrCredentials is returned when the process has changed its user or group
	// since it connected. It has to connect again.
	ErrCredentials = errors.New("peer process has changed its user or group since it connected")
	// ErrInvisible is returned when the process lives in a PID namespace that is
	// not visible from here, so that nothing can be read of it.
	ErrInvisible = errors.New("peer process is not visible from this PID namespace")
	// ErrLegacy is returned when the kernel has no SO_PEERPIDFD (Linux before
	// 6.5) and Attestor.RefuseLegacy is set.
	ErrLegacy = errors.New("kernel has no SO_PEERPIDFD and legacy peers are refused")
	// ErrClosed is returned after Peer.Close.
	ErrClosed = errors.New("peer is closed")
)
