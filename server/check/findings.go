package check

import (
	"fmt"

	"signet.example/api"
	"signet.example/internal/plain"
)

const (
	sevError   = api.Finding_ERROR
	sevWarning = api.Finding_WARNING
	sevInfo    = api.Finding_INFO
)

// The findings of `signet check`. An id is never given to another cause.
// docs/CHECKS.md has a section for each.
const (
	findDisconnected = "SIG001"
	findExpiry       = "SIG002"
	findOverdue      = "SIG003"
	findRejected     = "SIG004"
	findPolicy       = "SIG005"
	findNoPolicy     = "SIG006"
	findIssuingCA    = "SIG007"
	findConflict     = "SIG008"
	findPeerMode     = "SIG009"
	findAgentOwn     = "SIG010"
	findOrphan       = "SIG011"
	findAmbiguous    = "SIG012"
	findNoAgent      = "SIG013"
	findJWKS         = "SIG014"
	findStale        = "SIG015"
	findProxy        = "SIG016"
	findSigner       = "SIG017"
	findSignerUser   = "SIG018"
	findOpenEgress   = "SIG019"
	findTwoPlaces    = "SIG020"
	findNoEndpoint   = "SIG021"
	findNoProvider   = "SIG022"
	findLogCut       = "SIG023"
	findNoGroup      = "SIG024"
	findNotIssued    = "SIG025"
	findContested    = "SIG030"
	findPolicyWarn   = "SIG031"
	findAccessLog    = "SIG032"
	findUnsafeMesh   = "SIG033"
	findKeysLeft     = "SIG034"
	findCloudMap     = "SIG035"
	findObserved     = "SIG036"
	findIngress      = "SIG037"
	findUnseen       = "SIG038"
	findNoIngress    = "SIG039"
	findNoSpeaker    = "SIG040"
	findWideSpeaker  = "SIG041"
	findSpeaker      = "SIG042"
	findApplication  = "SIG043"
	findManyOfOne    = "SIG044"
	findAwaited      = "SIG045"
	findPostQuantum  = "SIG050"
)

// finding is one, as it is told.
func finding(id string, severity api.Finding_Severity, subject, fix, cause string, args ...any) *api.Finding {
	return &api.Finding{Id: id, Severity: severity.Enum(), Subject: subject, Fix: fix, Cause: plain.Cause(fmt.Sprintf(cause, args...))}
}
