package identity

import "crypto/tls"

// KeyExchanges are what each TLS connection of ours offers: hybrid post-quantum
// first, so that what is recorded today is not read by a quantum computer later
// (FIPS 203, draft-ietf-tls-ecdhe-mlkem), then what older peers have. They
// are listed here although they are Go's default: a default can change.
func KeyExchanges() []tls.CurveID {
	return []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}
}
