package server_test

import "testing"

func TestCheckWarnsOfASignerOfTheServersOwnUser(t *testing.T) {
	awaitFinding(t, newRig(t), "SIG018", "the server's own user")
}
