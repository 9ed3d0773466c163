package wayout

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"

	"signet.example/attestation"
)

// owner is who an application is: the user, and the service or container that it
// runs in, "" where that is none or cannot be seen from here.
type owner struct {
	UID  uint32 `json:"uid"`
	Unit string `json:"unit,omitempty"`
}

// UnmarshalJSON refuses an owner without a user, who would be user 0, and what it
// does not know: a unit under a wrong name would be none.
func (o *owner) UnmarshalJSON(b []byte) error {
	var has struct {
		UID  *uint32 `json:"uid"`
		Unit string  `json:"unit"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&has); err != nil {
		return err
	}
	if has.UID == nil {
		return errors.New("an owner needs a uid")
	}
	*o = owner{*has.UID, has.Unit}
	return nil
}

func (o owner) String() string {
	s := "user " + strconv.FormatUint(uint64(o.UID), 10)
	if o.Unit != "" {
		s += " in " + o.Unit
	}
	return s
}

// Users that systemd gives to services with DynamicUser=, and to others later.
const dynamicFirst, dynamicLast = 61184, 65519

func (o owner) dynamic() bool { return o.UID >= dynamicFirst && o.UID <= dynamicLast }

// follows reports whether o is the same application as before, despite what a
// restart changes: a container's id is new where its user stays, and the number
// of a dynamic user where its service stays. Where a unit was known, the user
// alone is not enough. Nor is the unit alone: those of cron and the like run
// every user's jobs, and only a dynamic user is the only one of its service.
func (o owner) follows(before owner) bool {
	switch {
	case o == before:
		return true
	case before.Unit == "":
		return o.UID == before.UID && !o.dynamic()
	case o.Unit == before.Unit:
		return o.dynamic() && before.dynamic()
	}
	return o.UID == before.UID && !o.dynamic() && attestation.MadeAnew(before.Unit, o.Unit)
}
