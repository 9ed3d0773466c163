package admin

import (
	"time"

	"google.golang.org/grpc"

	"signet.example/api"
)

// Unary is the interceptor of calls.
func Unary(s *Server) grpc.UnaryServerInterceptor { return s.unary }

// Stream is the interceptor of streams.
func Stream(s *Server) grpc.StreamServerInterceptor { return s.stream }

// MostFollowers is how many calls may follow decisions.
const MostFollowers = mostFollowers

// Follower is what is kept of one.
func Follower() (next func(asked time.Time, list []*api.Decision, silent []string) *api.FollowDecisionsResponse, kept func() int) {
	w := follower{decisions: map[[2]string]time.Time{}}
	return w.next, func() int { return len(w.decisions) }
}

// ReadLarge is as if a large change was read until the function that it returns is called.
func (s *Server) ReadLarge() func() {
	s.large <- struct{}{}
	return func() { <-s.large }
}
