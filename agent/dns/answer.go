package dns

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// ttl is how long an answer about a service may be kept, in seconds: its address stays, but
// whether there is one changes with the backends of the host's proxies.
const ttl = 5

// Names returns the address of a service by its name in lower case, without a dot at its end. Of
// one that is known and has no single address it is not valid.
type Names func(name string) (address netip.Addr, known bool)

// question is what one message asks for.
type question struct {
	header dnsmessage.Header
	dnsmessage.Question
}

// read reads a message of one question; whatever follows the question is not looked at.
func read(msg []byte) (q question, err error) {
	var p dnsmessage.Parser
	if q.header, err = p.Start(msg); err != nil {
		return q, err
	}
	q.Question, err = p.Question()
	return q, err
}

// same reports whether b answers what a asked: RFC 5452 9.1, and names in whatever case.
func (q question) same(b question) bool {
	return q.Type == b.Type && q.Class == b.Class && strings.EqualFold(q.Name.String(), b.Name.String())
}

// answer is what is said without asking anybody; done is false for what others are to be
// asked. Nothing is said to what is no question: reply is nil.
func answer(msg []byte, names Names) (q question, reply []byte, done bool) {
	q, err := read(msg)
	switch {
	case len(msg) < headerLength || q.header.Response:
		return q, nil, true
	case err != nil || countOf(msg) != 1:
		return q, refusal(msg, dnsmessage.RCodeFormatError), true
	case q.header.OpCode != 0:
		return q, refusal(msg, dnsmessage.RCodeNotImplemented), true
	}
	address, known := names(strings.TrimSuffix(strings.ToLower(q.Name.String()), "."))
	switch {
	case !known || q.Class != dnsmessage.ClassINET:
		return q, nil, false
	case !address.Is4():
		return q, q.failure(), true
	}
	return q, q.with(address), true
}

// with is the answer that has the address, where that was asked for; of any other type there is
// none, which is an answer as well.
func (q question) with(address netip.Addr) []byte {
	return q.reply(dnsmessage.RCodeSuccess, func(b *dnsmessage.Builder) error {
		if q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeALL {
			return nil
		}
		if err := b.StartAnswers(); err != nil {
			return err
		}
		return b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: ttl}, dnsmessage.AResource{A: address.As4()})
	})
}

// failure is the answer that there is none now (SERVFAIL).
func (q question) failure() []byte {
	return q.reply(dnsmessage.RCodeServerFailure, func(*dnsmessage.Builder) error { return nil })
}

func (q question) reply(code dnsmessage.RCode, add func(*dnsmessage.Builder) error) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: q.header.ID, Response: true, Authoritative: code == dnsmessage.RCodeSuccess, RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true, RCode: code,
	})
	b.EnableCompression()
	err := b.StartQuestions()
	if err == nil {
		err = b.Question(q.Question)
	}
	if err == nil {
		err = add(&b)
	}
	reply, finished := b.Finish()
	if err != nil || finished != nil {
		return nil // a name that was read is one that can be written
	}
	return reply
}

const headerLength = 12

// countOf is how many questions a message says that it has.
func countOf(msg []byte) int { return int(msg[4])<<8 | int(msg[5]) }

// refusal is the header of a message whose question was not read, as an answer with that code.
func refusal(msg []byte, code dnsmessage.RCode) []byte {
	reply := make([]byte, headerLength)
	copy(reply, msg[:4])
	reply[2] = msg[2]&0x79 | 0x80 // it answers; the operation and whether recursion is desired stay
	reply[3] = 0x80 | byte(code&0xf)
	return reply
}
