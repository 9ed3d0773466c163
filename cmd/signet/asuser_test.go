package main

import "testing"

func TestACommandLineOfAnotherUserIsReadByAShellAsItStands(t *testing.T) {
	for want, args := range map[string][]string{
		`signet --config '/etc/a file' 'it'\''s' '$(x)' '' --data-dir '/var/lib/a b'`: {"signet", "--config", "/etc/a file", "it's", "$(x)", ""},
		`signet --data-dir=/x`: {"signet", "--data-dir=/x"},
		`signet --data-dir /x`: {"signet", "--data-dir", "/x"},
	} {
		got := asUser(args, 64991, 64992, "/var/lib/a b", false)
		for _, sudo := range []string{"", "sudo "} {
			if got == sudo+"setpriv --reuid=64991 --regid=64992 --clear-groups "+want {
				got = want
			}
		}
		if got != want {
			t.Errorf("it is %s, want %s", got, want)
		}
	}
}
