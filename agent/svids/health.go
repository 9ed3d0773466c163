package svids

import (
	"fmt"
	"time"
)

// Overdue is an error where some of what is held was to be renewed long ago. It counts them and names
// none, nor why: whoever reaches the port reads it.
func Overdue(held map[string]*SVID, now time.Time) error {
	late := 0
	for _, s := range held {
		if Reached(s.Issued.Add(s.Lifetime()/2), now) {
			late++
		}
	}
	if late == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d certificates were to be renewed and are not: `signet check` names them, the agent's log says why", late, len(held))
}

// Budget is how long the SVID with the nearest end still is.
func (k *Keeper) Budget() (least time.Duration, found bool) {
	for _, s := range k.Held() {
		if left := time.Until(s.NotAfter()); !found || left < least {
			least, found = left, true
		}
	}
	return least, found
}
