package store

import "testing"

// SetPruneBatch makes transactions that delete smaller until the test ends.
func SetPruneBatch(t *testing.T, rows int64) {
	was := pruneBatch
	pruneBatch = rows
	t.Cleanup(func() { pruneBatch = was })
}
