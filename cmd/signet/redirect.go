package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/internal/netns"
	"signet.example/redirect"
)

// newRedirect is about the rules that lead connections of a network namespace to its proxy.
func newRedirect() *cobra.Command {
	c := group(&cobra.Command{
		Use:   "redirect",
		Short: "Lead connections of this network namespace to its proxy, by nftables",
		Long: `Rules of this network namespace that lead to a proxy what the application calls, and what calls the
application, and neither has to be told of the proxy (docs/TASKS.md). They are what proxyConfiguration does on ECS,
for hosts and pods where CAP_NET_ADMIN is to be had: as a container that runs before the others, or by hand.

There is one table of nftables, "inet signet", and no other is touched. Each flag has the environment variable
of App Mesh's own container for it; the flag wins.`,
		Example: `  signet redirect up --app-port 8080 --ignore-uid 1337
  signet redirect check --app-port 8080
  signet redirect down`,
	})
	c.AddCommand(newRedirectUp(), newRedirectDown(), newRedirectCheck())
	return c
}

func newRedirectUp() *cobra.Command {
	c := &cobra.Command{
		Use:   "up",
		Short: "Redirect, by these rules and no others",
		Long: `Makes the table what the flags say, in one step, whatever it was before. Connections that are there already
go on as they are.

On a host, whose network is everybody's, it takes the calls of the users of --only-uid alone.

At its end it says on standard error what check would say of who listens where the rules lead to.`,
		Example: `  signet redirect up --app-port 8080
  signet redirect up --only-uid 1000 --dry-run`,
		Args: noArgs,
	}
	flags := redirectFlags(c)
	dry := c.Flags().Bool("dry-run", false, "print the rules as nft reads them, and change nothing")
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, on, err := flags.rules(c, os.Environ())
		switch {
		case err != nil:
			return err
		case !on:
			_, err := fmt.Fprintln(c.OutOrStdout(), "APPMESH_START_ENABLED is 0: nothing is redirected")
			return err
		case *dry:
			_, err := fmt.Fprint(c.OutOrStdout(), r)
			return err
		case len(r.OnlyUIDs) == 0 && netns.OfHost():
			return hinted(errors.New("this is the network namespace of the host: calls of all its users would go to one proxy, which lets out its application alone"),
				"name the application's user by --only-uid, or run it in the network namespace of a task or pod")
		}
		if err := redirect.Up(r); err != nil {
			return redirectFailed(err)
		}
		warnOfIPv6(c.ErrOrStderr(), r)
		_, err = fmt.Fprintln(c.OutOrStdout(), "redirected: "+summary(r))
		warnOfListeners(c, r)
		return err
	}
	return c
}

// warnOfListeners writes what check would find of who listens. The rules are there already, and the
// proxy is often started after them: it is no failure.
func warnOfListeners(c *cobra.Command, r redirect.Rules) {
	l, err := listenersOf(c.Context(), r)
	if err != nil {
		l.strangers = append(l.strangers, fmt.Sprintf("who listens where the rules lead to is not known: %v", err))
	}
	for _, line := range l.strangers {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), "warning: "+line) // stderr is gone: nobody to tell
	}
	for _, line := range l.silent {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), "note: "+line) // the same
	}
}

func newRedirectDown() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "Redirect nothing any more",
		Long:    "Removes the table \"inet signet\", and nothing else. Where there is none it does nothing.",
		Example: "  signet redirect down",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			was, err := redirect.Down()
			if err != nil {
				return redirectFailed(err)
			}
			said := "nothing was redirected"
			if was {
				said = "nothing is redirected any more"
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), said)
			return err
		},
	}
}

func newRedirectCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Whether it is redirected as these rules say, and the proxy listens",
		Long: `Compares the table with what the same flags of "up" would make of it, rule by rule, and looks whether somebody
listens where it leads to and is a user of --ignore-uid. With --ignore-gid any user may: a listener's group cannot be
seen. Exit code 3 where something is not as it should be.`,
		Example: `  signet redirect check --app-port 8080
  signet redirect check --only-uid 1000`,
		Args: noArgs,
	}
	flags := redirectFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, on, err := flags.rules(c, os.Environ())
		if err != nil {
			return err
		}
		if !on {
			return usage(errors.New("APPMESH_START_ENABLED is 0: there is nothing to check"))
		}
		found, err := redirect.Check(r)
		if err != nil {
			return redirectFailed(err)
		}
		warnOfIPv6(c.ErrOrStderr(), r)
		listeners, err := listenersOf(c.Context(), r)
		if err != nil {
			return err
		}
		found = slices.Concat(found, listeners.silent, listeners.strangers)
		for _, line := range found {
			if _, err := fmt.Fprintln(c.OutOrStdout(), line); err != nil {
				return err
			}
		}
		if len(found) > 0 {
			return different()
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), "as it should be: "+summary(r))
		return err
	}
	return c
}

// redirectFailed gives the hint that a refusal of the kernel's needs.
func redirectFailed(err error) error {
	if errors.Is(err, redirect.ErrNotAllowed) {
		return &exitError{err: err, code: exitDenied, hint: "run it as root, or in a container with cap-add NET_ADMIN; Fargate has none: there proxyConfiguration redirects (docs/TASKS.md)"}
	}
	return err
}

// warnOfIPv6 writes what is left open where IPv6 is left alone and other hosts are reached by it.
func warnOfIPv6(w io.Writer, r redirect.Rules) {
	if own := netns.GlobalIPv6(); r.IPv4Only && own != "" {
		_, _ = fmt.Fprintf(w, "warning: IPv6 is left alone (--ipv4-only, APPMESH_ENABLE_IPV6=0), and this network namespace has %s: what comes and goes by it is not led to the proxy, so that none of its policies and no mTLS hold there\n", own) // stderr is gone: nobody to tell
	}
}

// summary is what is redirected, in a line.
func summary(r redirect.Rules) string {
	s := fmt.Sprintf("what goes out to port %d", r.EgressPort)
	if len(r.OnlyUIDs) > 0 {
		s += fmt.Sprintf(" (of users %s)", joined(r.OnlyUIDs))
	}
	if len(r.AppPorts) > 0 {
		s += fmt.Sprintf(", what comes in for %s to port %d", joined(r.AppPorts), r.IngressPort)
	}
	return s
}

func joined[T uint16 | uint32](list []T) string {
	var text []string
	for _, n := range list {
		text = append(text, strconv.FormatUint(uint64(n), 10))
	}
	return strings.Join(text, ", ")
}

// ofRedirection are the names that App Mesh's container had for a flag; its proxyConfiguration
// has the same values by other names (docs/TASKS.md).
var ofRedirection = map[string]string{
	"APPMESH_IGNORE_UID": "ignore-uid", "APPMESH_IGNORE_GID": "ignore-gid",
	"APPMESH_ENVOY_EGRESS_PORT": "egress-port", "APPMESH_ENVOY_INGRESS_PORT": "ingress-port", "APPMESH_APP_PORTS": "app-port",
	"APPMESH_EGRESS_IGNORED_IP": "ignore-address", "APPMESH_EGRESS_IGNORED_PORTS": "ignore-port",
}

// redirection are the flags that are rules.
type redirection struct {
	egress, ingress               *uint16
	app, ignorePort               *[]uint
	ignoreUID, ignoreGID, onlyUID *[]uint
	ignoreAddress                 *[]string
	ipv4Only                      *bool
}

func redirectFlags(c *cobra.Command) redirection {
	f := c.Flags()
	defer func() {
		for _, none := range []string{"app-port", "ignore-gid", "only-uid", "ignore-port"} {
			f.Lookup(none).DefValue = "" // the help has none as []
		}
	}()
	return redirection{
		egress:        f.Uint16("egress-port", redirect.DefaultEgressPort, "port of the proxy's way out, on loopback [APPMESH_ENVOY_EGRESS_PORT]"),
		ingress:       f.Uint16("ingress-port", redirect.DefaultIngressPort, "the proxy's port for what comes in [APPMESH_ENVOY_INGRESS_PORT]"),
		app:           f.UintSlice("app-port", nil, "ports of the application; without them nothing that comes in is redirected [APPMESH_APP_PORTS]"),
		ignoreUID:     f.UintSlice("ignore-uid", []uint{redirect.DefaultUID}, "users whose calls are left alone: the proxy's and its agent's [APPMESH_IGNORE_UID]"),
		ignoreGID:     f.UintSlice("ignore-gid", nil, "groups whose calls are left alone [APPMESH_IGNORE_GID]"),
		onlyUID:       f.UintSlice("only-uid", nil, "the only users whose calls are redirected; default all others than --ignore-uid"),
		ignorePort:    f.UintSlice("ignore-port", nil, "destination ports that are left alone [APPMESH_EGRESS_IGNORED_PORTS]"),
		ignoreAddress: f.StringSlice("ignore-address", nil, "destinations that are left alone, addresses or ranges; 169.254.0.0/16, fe80::/10 and fd00:ec2::/32 always are [APPMESH_EGRESS_IGNORED_IP]"),
		ipv4Only:      f.Bool("ipv4-only", false, "leave IPv6 alone [APPMESH_ENABLE_IPV6=0]"),
	}
}

// rules are what flags and App Mesh's variables say; on is false where the latter turn it off.
func (f redirection) rules(c *cobra.Command, environ []string) (r redirect.Rules, on bool, err error) {
	if on, err = readAppMesh(c, environ); err != nil || !on {
		return redirect.Rules{}, on, err
	}
	r = redirect.Rules{EgressPort: *f.egress, IngressPort: *f.ingress, IPv4Only: *f.ipv4Only}
	var errs []error
	r.AppPorts = within[uint16](&errs, "app-port", *f.app, 1)
	r.IgnorePorts = within[uint16](&errs, "ignore-port", *f.ignorePort, 1)
	r.IgnoreUIDs = within[uint32](&errs, "ignore-uid", *f.ignoreUID, 0)
	r.IgnoreGIDs = within[uint32](&errs, "ignore-gid", *f.ignoreGID, 0)
	r.OnlyUIDs = within[uint32](&errs, "only-uid", *f.onlyUID, 0)
	for _, text := range *f.ignoreAddress {
		p, err := prefixOf(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--ignore-address: %w", err))
		}
		r.IgnoreAddresses = append(r.IgnoreAddresses, p)
	}
	if errs == nil {
		errs = append(errs, r.Validate())
	}
	if err := errors.Join(errs...); err != nil {
		return redirect.Rules{}, true, usage(err)
	}
	return r, true, nil
}

// within are numbers of a flag, each once, of which none is below least or more than its type has.
func within[T uint16 | uint32](errs *[]error, flag string, list []uint, least uint) []T {
	var all []T
	for _, n := range list {
		if n < least || uint(T(n)) != n {
			*errs = append(*errs, fmt.Errorf("--%s: %d is out of range", flag, n))
		}
		all = append(all, T(n))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// prefixOf reads an address, or a range of them.
func prefixOf(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if a, alone := netip.ParseAddr(text); alone == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("want an IP address or a range such as 10.0.0.0/8, got %q", text)
	}
	return p, nil
}

// trimmed is a list without spaces around what is in it, as "8080, 9090" has them.
func trimmed(list string) string {
	items := strings.Split(list, ",")
	for i, item := range items {
		items[i] = strings.TrimSpace(item)
	}
	return strings.Join(items, ",")
}

// readAppMesh sets the flags that were not given by App Mesh's variables, and refuses others of
// App Mesh's: what is only ignored would look as if it went on.
func readAppMesh(c *cobra.Command, environ []string) (on bool, err error) {
	on = true
	var errs []error
	for _, one := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(one, "=")
		flag, value := ofRedirection[name], strings.TrimSpace(value)
		switch {
		case !strings.HasPrefix(name, "APPMESH_") || value == "":
			continue
		case (name == "APPMESH_START_ENABLED" || name == "APPMESH_ENABLE_IPV6") && value != "0" && value != "1":
			errs = append(errs, fmt.Errorf("%s=%s: want 0 or 1", name, value))
			continue
		case name == "APPMESH_START_ENABLED":
			on = value == "1"
			continue
		case name == "APPMESH_ENABLE_IPV6":
			flag, value = "ipv4-only", strconv.FormatBool(value == "0")
		case flag == "":
			errs = append(errs, fmt.Errorf("%s=%s: of App Mesh's environment, and nothing of the redirection here is said by it: take it out", name, value))
			continue
		}
		if c.Flags().Changed(flag) {
			continue
		}
		if err := c.Flags().Set(flag, trimmed(value)); err != nil {
			errs = append(errs, badValue(name+"="+value, c.Flags().Lookup(flag)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return on, usage(err)
	}
	return on, nil
}
