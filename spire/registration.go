package spire

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"signet.example/identity"
)

// Registration is one of SPIRE's, which it calls a registration entry.
type Registration struct {
	File string
	Line int
	// ID is SPIRE's own.
	ID                   string
	SPIFFEID, ParentID   string
	Selectors            []string
	X509TTL, JWTTTL      int64 // seconds, 0 for the server's default
	FederatesWith        []string
	DNSNames             []string
	Hint                 string
	ExpiresAt            int64 // seconds of Unix time, 0 for never
	Admin, Downstream    bool
	StoreSVID            bool
	IncludeJTI, Prefetch bool // of its additional attributes; Prefetch: disable_x509_svid_prefetch

	// wrong is what of it is not understood.
	wrong []string
}

// Read reads registrations: {"entries": […]} as `entry show -output json` prints it and as
// `entry create -data` reads it. What is wrong with one of them is told of it by Convert; an error
// is of the whole file.
func Read(file string, content []byte) ([]Registration, error) {
	v, err := parse(file, content)
	if err != nil {
		return nil, err
	}
	top, ok := v.(object)
	if !ok {
		return nil, fmt.Errorf("%s: want an object with \"entries\", as `spire-server entry show -output json` prints it", file)
	}
	var list []Registration
	found := false
	for _, m := range top.members {
		switch m.name {
		case "entries":
			found = true
			items, ok := m.value.([]any)
			if m.value != nil && !ok {
				return nil, fmt.Errorf("%s: entries: want a list", file)
			}
			for i, item := range items {
				o, ok := item.(object)
				if !ok {
					return nil, fmt.Errorf("%s: entries[%d]: want an object", file, i)
				}
				list = append(list, registration(file, o))
			}
		case "next_page_token":
			if m.value != "" && m.value != nil {
				return nil, fmt.Errorf("%s: next_page_token: is one page of several: `spire-server entry show -output json` prints all", file)
			}
		default:
			return nil, fmt.Errorf("%s: %.64q is not of what `spire-server entry show -output json` prints", file, m.name)
		}
	}
	if !found {
		return nil, fmt.Errorf("%s: has no \"entries\": want what `spire-server entry show -output json` prints", file)
	}
	return list, nil
}

// field reads one member of a registration, "" or what is wrong with it. Both forms have a name of
// their own for some.
type field func(r *Registration, v any) string

var fields = map[string]field{
	"id":              text(func(r *Registration) *string { return &r.ID }),
	"entry_id":        text(func(r *Registration) *string { return &r.ID }),
	"spiffe_id":       id(func(r *Registration) *string { return &r.SPIFFEID }),
	"parent_id":       id(func(r *Registration) *string { return &r.ParentID }),
	"selectors":       selectors,
	"x509_svid_ttl":   number(func(r *Registration) *int64 { return &r.X509TTL }),
	"jwt_svid_ttl":    number(func(r *Registration) *int64 { return &r.JWTTTL }),
	"federates_with":  texts(func(r *Registration) *[]string { return &r.FederatesWith }),
	"dns_names":       texts(func(r *Registration) *[]string { return &r.DNSNames }),
	"hint":            text(func(r *Registration) *string { return &r.Hint }),
	"expires_at":      number(func(r *Registration) *int64 { return &r.ExpiresAt }),
	"entryExpiry":     number(func(r *Registration) *int64 { return &r.ExpiresAt }),
	"admin":           boolean(func(r *Registration) *bool { return &r.Admin }),
	"downstream":      boolean(func(r *Registration) *bool { return &r.Downstream }),
	"store_svid":      boolean(func(r *Registration) *bool { return &r.StoreSVID }),
	"revision_number": number(func(*Registration) *int64 { return new(int64) }), // SPIRE's own
	"created_at":      number(func(*Registration) *int64 { return new(int64) }), // the same
}

var attributes = map[string]field{
	"disable_x509_svid_prefetch": boolean(func(r *Registration) *bool { return &r.Prefetch }),
	"jwt_svid_include_jti":       boolean(func(r *Registration) *bool { return &r.IncludeJTI }),
}

// inner are members that are objects of fields themselves.
var inner = map[string]map[string]field{"additional_attributes": attributes}

func registration(file string, o object) Registration {
	r := Registration{File: file, Line: o.line}
	r.read("", o, fields)
	return r
}

func (r *Registration) read(path string, o object, known map[string]field) {
	for _, m := range o.members {
		name := path + m.name
		below, isObject := m.value.(object)
		switch {
		case m.value == nil: // as protojson has it
		case path == "" && inner[m.name] != nil && isObject:
			r.read(name+".", below, inner[m.name])
		case known[m.name] == nil:
			r.wrong = append(r.wrong, fmt.Sprintf("%s: is not known to this version, which reads what SPIRE 1.15 prints", identity.Abbreviate(name)))
		default:
			if why := known[m.name](r, m.value); why != "" {
				r.wrong = append(r.wrong, name+": "+why)
			}
		}
	}
}

func text(of func(*Registration) *string) field {
	return func(r *Registration, v any) string {
		s, ok := v.(string)
		if !ok {
			return "want a text"
		}
		*of(r) = s
		return ""
	}
}

func texts(of func(*Registration) *[]string) field {
	return func(r *Registration, v any) string {
		list, ok := v.([]any)
		if !ok {
			return "want a list of texts"
		}
		for _, item := range list {
			s, ok := item.(string)
			if !ok {
				return "want a list of texts"
			}
			*of(r) = append(*of(r), s)
		}
		return ""
	}
}

func boolean(of func(*Registration) *bool) field {
	return func(r *Registration, v any) string {
		b, ok := v.(bool)
		if !ok {
			return "want true or false"
		}
		*of(r) = b
		return ""
	}
}

// number reads one as it is written or, as protojson has those of 64 bits, as a text.
func number(of func(*Registration) *int64) field {
	return func(r *Registration, v any) string {
		var written string
		switch v := v.(type) {
		case json.Number:
			written = v.String()
		case string:
			written = v
		}
		n, err := strconv.ParseInt(written, 10, 64)
		if err != nil || n < 0 {
			return "want a number that is not negative"
		}
		*of(r) = n
		return ""
	}
}

// id reads a SPIFFE ID as it is written, or as {"trust_domain", "path"}. Whether it is one is
// looked at later.
func id(of func(*Registration) *string) field {
	return func(r *Registration, v any) string {
		switch v := v.(type) {
		case string:
			*of(r) = v
			return ""
		case object:
			parts, why := pair(v, "trust_domain", "path")
			switch {
			case why != "":
				return why
			case strings.Contains(parts[0], "/") || parts[1] != "" && parts[1][0] != '/':
				return "want the name of a trust domain, and a path that begins with /"
			}
			*of(r) = "spiffe://" + parts[0] + parts[1]
			return ""
		}
		return "want a SPIFFE ID"
	}
}

func selectors(r *Registration, v any) string {
	list, ok := v.([]any)
	if !ok {
		return "want a list"
	}
	for i, item := range list {
		o, ok := item.(object)
		if !ok {
			return fmt.Sprintf("[%d]: want an object of type and value", i)
		}
		parts, why := pair(o, "type", "value")
		switch {
		case why != "":
			return fmt.Sprintf("[%d]: %s", i, why)
		case strings.Contains(parts[0], ":"):
			return fmt.Sprintf("[%d]: a type has no colon", i)
		}
		r.Selectors = append(r.Selectors, parts[0]+":"+parts[1])
	}
	return ""
}

// pair are the two texts of an object that has no other members; one that is not there is empty.
func pair(o object, first, second string) (parts [2]string, why string) {
	for _, m := range o.members {
		s, ok := m.value.(string)
		switch {
		case m.value == nil:
		case m.name != first && m.name != second:
			return parts, fmt.Sprintf("%s is neither %s nor %s", identity.Abbreviate(m.name), first, second)
		case !ok:
			return parts, m.name + ": want a text"
		case m.name == first:
			parts[0] = s
		default:
			parts[1] = s
		}
	}
	return parts, ""
}
