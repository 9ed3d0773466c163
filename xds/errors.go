package xds

import "fmt"

func errPortTaken(listener string) error {
	return fmt.Errorf("%s: the outbound listener has this port already, on the proxy's or the application's address (egress of the proxy's shape)", listener)
}

func errHost(service string) error {
	return fmt.Errorf("virtual service %q: not a host name; a name with * or : would match other hosts", service)
}

func errSameHost(a, b string) error {
	return fmt.Errorf("virtual services %q and %q are the same host", a, b)
}

func errUnnamed(where string) error {
	return fmt.Errorf("%s: its trust is a file, whose authorities may vouch for many servers, and neither names nor a hostname say which is meant: give validation.subjectAlternativeNames", where)
}

func errOurName(where, name string) error {
	return fmt.Errorf("%s: %q is of the mesh's own trust domain, and no authority of a file speaks for that: leave the trust to acm or sds, or name another server", where, name)
}

func errNoNames(where string) error {
	return fmt.Errorf("%s: an empty list of subject alternative names would accept anyone", where)
}
