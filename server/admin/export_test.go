package admin

import "google.golang.org/grpc"

// Unary is the interceptor of calls.
func Unary(s *Server) grpc.UnaryServerInterceptor { return s.unary }
