package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

const (
	// perUpstream is how long each of them may take to answer.
	perUpstream = 2 * time.Second
	// mostMessage is the largest message by UDP, and the largest question by TCP.
	mostMessage = 4096
)

var errLarge = errors.New("the answer is larger than what is taken by UDP")

// forward asks the name servers, one after the other, and returns the first good answer: with
// the id of the question, from a port and with an id that nobody could guess.
func (s *Server) forward(ctx context.Context, network string, q question, msg []byte) ([]byte, error) {
	var err error
	for _, up := range s.upstreams {
		var reply []byte
		if reply, err = ask(ctx, network, up, q, msg); err == nil {
			binary.BigEndian.PutUint16(reply, q.header.ID)
			return reply, nil
		}
	}
	return nil, err
}

// ask asks one name server over a socket of its own, whose port the kernel chooses.
func ask(ctx context.Context, network string, up netip.AddrPort, q question, msg []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, perUpstream)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, up.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // answered, or not
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	out := append([]byte(nil), msg...)
	if _, err := rand.Read(out[:2]); err != nil {
		return nil, err
	}
	if network == "tcp" {
		if err := writeTCP(conn, out); err != nil {
			return nil, err
		}
		reply, err := readTCP(conn, 1<<16-1)
		if err == nil && !answers(reply, out, q) {
			err = errors.New("the answer is to another question")
		}
		return reply, err
	}
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	buf := make([]byte, mostMessage+1)
	for {
		n, err := conn.Read(buf)
		switch {
		case err != nil:
			return nil, err
		case !answers(buf[:n], out, q): // somebody's who guesses, or a late one
		case n > mostMessage:
			return nil, errLarge
		default:
			return buf[:n], nil
		}
	}
}

// answers reports whether a message is the answer to out, which asked q.
func answers(msg, out []byte, q question) bool {
	a, err := read(msg)
	return err == nil && a.header.Response && a.header.ID == binary.BigEndian.Uint16(out) && q.same(a)
}

// readTCP reads one message with its length before it (RFC 1035 4.2.2).
func readTCP(r io.Reader, most int) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n < headerLength || n > most {
		return nil, errors.New("a message of a length that none has")
	}
	msg := make([]byte, n)
	_, err := io.ReadFull(r, msg)
	return msg, err
}

func writeTCP(w io.Writer, msg []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)) //nolint:gosec // one that was read: at most 65535
	return err
}
