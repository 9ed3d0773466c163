package underway

import (
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
)

// Methods are those of a server, as calls name them.
type Methods map[string]bool

// MethodsOf returns those of a server that has all of its services. Each of them takes a
// message at least.
func MethodsOf(s *grpc.Server) Methods {
	all := Methods{}
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			all["/"+service+"/"+m.Name] = true
		}
	}
	return all
}

// A client that is newer than we are may try a method that we do not have, again and again:
// so many at once, and so many in a second, are gRPC's to refuse. Whoever has more is closed
// before gRPC makes a stream and its goroutine of any of them.
const unmeantPerSecond, unmeantBurst = 1, 8

// Takes has calls of other methods, and such as no message will follow, be bounded. It is
// called before anything is read.
func (c *Conn) Takes(m Methods) { c.streams.methods = m }

// unmeant reports whether such calls, of what was taken last, are more than there may be.
func (c *Conn) unmeant() bool {
	n := c.streams.unmeant
	if n == 0 {
		return false
	}
	c.streams.unmeant = 0
	if c.refusable == nil {
		c.refusable = rate.NewLimiter(unmeantPerSecond, unmeantBurst)
	}
	return !c.refusable.AllowN(time.Now(), n)
}
