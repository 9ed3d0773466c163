package store

import "testing"

// SetPruneBatch makes transactions that delete smaller until the test ends.
func SetPruneBatch(t *testing.T, rows int64) {
	was := pruneBatch
	pruneBatch = rows
	t.Cleanup(func() { pruneBatch = was })
}

// Fill has the database grow no more, as on a full disk.
func Fill(t *testing.T, s *Store) {
	if _, err := s.write.ExecContext(t.Context(), "PRAGMA max_page_count = 1"); err != nil { // as many as there are
		t.Fatal(err)
	}
}
