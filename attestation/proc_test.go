package attestation_test

import (
	"strings"
	"testing"

	"signet.example/attestation"
)

// stat with a command as the process chose it.
func stat(command string) string {
	return "42 (" + command + ") S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21 22 100 200 300 26"
}

func TestCommandNameCannotShiftTheFieldsOfStat(t *testing.T) {
	for _, command := range []string{"web", "a b", ") S 1 1 1", "((((", "", "x) R 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 ("} {
		start, err := attestation.ParseStart([]byte(stat(command)))
		if err != nil || start != 777 {
			t.Errorf("command %q: start %d, %v", command, start, err)
		}
	}
}

func TestProcFilesThatAreCutShortAreErrors(t *testing.T) {
	whole := stat("web")
	for n := range strings.LastIndex(whole, " 300") {
		if _, err := attestation.ParseStart([]byte(whole[:n])); err == nil {
			t.Errorf("%q was taken", whole[:n])
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte(stat("web")))
	f.Add([]byte("1 () "))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _ = attestation.ParseStart(raw) // does not panic
	})
}
