package admin

import "google.golang.org/grpc"

// Unary is the interceptor of calls.
func Unary(s *Server) grpc.UnaryServerInterceptor { return s.unary }

// ReadLarge is as if a large change was read until the function that it returns is called.
func (s *Server) ReadLarge() func() {
	s.large <- struct{}{}
	return func() { <-s.large }
}
