package mesh

import (
	"fmt"

	"signet.example/internal/manifest"
)

// CheckTransition refuses a change that breaks calls by definition, whatever
// the order in which it is pushed (R12): a listener that goes from
// plaintext only to TLS only, or back. Between the two stands PERMISSIVE,
// which serves both while clients and servers change over. A listener without
// tls is managed and counts as PERMISSIVE. A nil old or new node, one that is
// created or deleted, breaks nothing.
func CheckTransition(old, new *VirtualNodeSpec) manifest.Errors {
	if old == nil || new == nil {
		return nil
	}
	before := map[uint32]string{}
	for i := range old.Listeners {
		before[old.Listeners[i].PortMapping.Port] = old.Listeners[i].mode()
	}
	var errs manifest.Errors
	for i := range new.Listeners {
		l := &new.Listeners[i]
		was, is := before[l.PortMapping.Port], l.mode()
		if was == TLSDisabled && is == TLSStrict || was == TLSStrict && is == TLSDisabled {
			errs = append(errs, &manifest.Error{
				Field: fmt.Sprintf("spec.listeners[%d].tls.mode", i),
				Msg:   fmt.Sprintf("port %d goes from %s to %s, which fails every call on the way: apply PERMISSIVE first", l.PortMapping.Port, was, is),
			})
		}
	}
	return errs
}

func (l *VirtualNodeListener) mode() string {
	if l.TLS == nil {
		return TLSPermissive
	}
	return l.TLS.Mode
}
