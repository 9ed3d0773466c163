package signer

import (
	"errors"
	"fmt"

	"signet.example/api"
	"signet.example/ca"
)

// profiles and kinds have ca's names, which stand in the log.
var profiles = map[api.Profile]string{
	api.Profile_PROFILE_WORKLOAD: ca.ProfileWorkload,
	api.Profile_PROFILE_AGENT:    ca.ProfileAgent,
	api.Profile_PROFILE_SERVER:   ca.ProfileServer,
}

var kinds = map[api.RecordKind]string{
	api.RecordKind_RECORD_KIND_AUTHORITY: string(ca.KindAuthority),
	api.RecordKind_RECORD_KIND_RESERVED:  string(ca.KindReserved),
	api.RecordKind_RECORD_KIND_ISSUED:    string(ca.KindIssued),
	api.RecordKind_RECORD_KIND_ABANDONED: string(ca.KindAbandoned),
}

// valueOf is the enum's value of a name; 0, which means none, if it has none here.
func valueOf[E comparable](names map[E]string, name string) (value E) {
	for e, n := range names {
		if n == name {
			return e
		}
	}
	return value
}

func profileOf(name string) api.Profile { return valueOf(profiles, name) }

func kindOf(name string) api.RecordKind { return valueOf(kinds, name) }

// ProfileName is a profile's name in the log and in metrics; "" if it has none here.
func ProfileName(p api.Profile) string { return profiles[p] }

// profileName is which profile an item asks for. A server from before the enum
// names it.
func profileName(item *api.SignItem) (string, error) {
	switch p, name := item.GetProfile(), item.GetProfileName(); {
	case p != api.Profile_PROFILE_UNSPECIFIED && profiles[p] == "":
		return "", fmt.Errorf("profile %d is not known here: the server is of a newer version than this signer; update the signer", p)
	case p != api.Profile_PROFILE_UNSPECIFIED:
		return profiles[p], nil
	case name == "":
		return "", errors.New("the request names no profile: server and signer are of versions that do not fit each other; run one version of both")
	default:
		return name, nil // ca refuses what it does not know
	}
}
