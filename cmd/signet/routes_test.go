package main

import (
	"testing"

	"signet.example/api"
)

func TestRetriesAreCountedInWords(t *testing.T) {
	for most, want := range map[uint32]string{0: "no retries", 1: "at most 1 retry, on reset", 2: "at most 2 retries, on reset"} {
		if got := retriesText(&api.RoutesResponse_Retries{Most: most, On: []string{"reset"}}); got != want {
			t.Errorf("%d: %s, want %s", most, got, want)
		}
	}
}
