package nodes

// Challenge is what a method binds evidence to.
func (c Channel) Challenge(method string) ([]byte, error) { return c.challenge(method) }
