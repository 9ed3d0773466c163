package departed

// Len is how many places are kept, in either way.
func (p *Places) Len() int {
	n := 0
	for _, list := range p.left {
		n += len(list)
	}
	return max(n, len(p.by))
}
