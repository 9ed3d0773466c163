package signer

import (
	"errors"
	"fmt"

	"signet.example/api"
	"signet.example/ca"
)

// names are ca's names of the profiles, which stand in the log.
var names = map[api.Profile]string{
	api.Profile_PROFILE_WORKLOAD: ca.ProfileWorkload,
	api.Profile_PROFILE_AGENT:    ca.ProfileAgent,
	api.Profile_PROFILE_SERVER:   ca.ProfileServer,
}

// ProfileName is a profile's name in the log and in metrics; "" if it has none here.
func ProfileName(p api.Profile) string { return names[p] }

// profileOf is the profile of a name; PROFILE_UNSPECIFIED if there is none here.
func profileOf(name string) api.Profile {
	for p, n := range names {
		if n == name {
			return p
		}
	}
	return api.Profile_PROFILE_UNSPECIFIED
}

// profileName is which profile an item asks for. A server from before the enum
// names it.
func profileName(item *api.SignItem) (string, error) {
	switch p, name := item.GetProfile(), item.GetProfileName(); {
	case p != api.Profile_PROFILE_UNSPECIFIED && names[p] == "":
		return "", fmt.Errorf("profile %d is not known here: the server is of a newer version than this signer; update the signer", p)
	case p != api.Profile_PROFILE_UNSPECIFIED:
		return names[p], nil
	case name == "":
		return "", errors.New("the request names no profile: server and signer are of versions that do not fit each other; run one version of both")
	default:
		return name, nil // ca refuses what it does not know
	}
}
