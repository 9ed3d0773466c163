package jwt

// VerifySignature does what is done before the claims are looked at, with one key.
func VerifySignature(jwk []byte, text string) error {
	k, err := parseKey(jwk)
	if err != nil {
		return err
	}
	c, err := Parse(text)
	if err != nil {
		return err
	}
	alg, kid, err := tokenHeader(c.header)
	if err != nil {
		return err
	}
	iss := &issuer{keys: []key{k}}
	found, err := iss.key(alg, kid)
	if err != nil {
		return err
	}
	return checkSignature(c, found)
}

// KeyAlgorithm reports what a JWK is used for, or why it is not.
func KeyAlgorithm(jwk []byte) (string, error) {
	k, err := parseKey(jwk)
	return string(k.algorithm), err
}
