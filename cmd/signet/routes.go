package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newRoutes() *cobra.Command {
	c := &cobra.Command{
		Use:   "routes SERVICE[/PATH]",
		Short: "What becomes of a request: the route that takes it, and why no other",
		Long: `Tells what the proxy of a virtual node does with a request of its application, by the
routes that it has now: which route takes it, where that leads and with which share,
within which time and with which retries, what the callee's own proxy bounds below that,
and why each route before it does not. SERVICE is the host that the caller names, with a
port where it names one; at a port of protocol tcp it is told where the application connects.
With --gateway it is a request that comes to a virtual gateway.
Whether the callee lets it in is for its policy: signet explain.`,
		Example: `  signet routes orders.shop.internal/cart --from web
  signet routes orders.shop.internal/cart?v=2 --from web -X DELETE -H 'x-canary: 1'
  signet routes db.shop.internal:5432 --from web
  signet routes www.example.com/ --from edge --gateway -o json`,
		Args: func(c *cobra.Command, args []string) error {
			if given, _ := c.Flags().GetBool("gateway"); given && len(args) > 1 {
				return usage(errors.New("--gateway is a switch and takes no name: --from names the gateway"))
			}
			return exactArgs("a SERVICE")(c, args)
		},
		ValidArgsFunction: completeNames("virtualservices"),
	}
	socketFlag(c)
	resultFlag(c)
	from := c.Flags().String("from", "", "the virtual node that calls, or with --gateway the virtual gateway: NAME or MESH/NAME")
	completeFlag(c, "from", "virtualnodes")
	gateway := c.Flags().Bool("gateway", false, "--from is a virtual gateway, and the request comes to it")
	port := c.Flags().Uint16("port", 0, "the listener of the gateway, where it has several")
	method := c.Flags().StringP("request", "X", "GET", "the method")
	headers := c.Flags().StringArrayP("header", "H", nil, "a header, as 'name: value'; may be repeated")
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := resultOf(c)
		if err != nil {
			return err
		}
		req := &api.RoutesRequest{From: *from, Gateway: *gateway, Port: uint32(*port), Method: strings.ToUpper(*method)}
		if req.GetFrom() == "" {
			return usage(errors.New("--from is needed: who calls"))
		}
		if mesh, name, ok := strings.Cut(*from, "/"); ok {
			req.Mesh, req.From = mesh, name
		}
		target := strings.TrimPrefix(args[0], "http://")
		at := strings.IndexAny(target, "/?")
		if at < 0 {
			at = len(target)
		}
		req.Authority, req.Path = target[:at], target[at:]
		if !strings.HasPrefix(req.GetPath(), "/") {
			req.Path = "/" + req.GetPath()
		}
		for _, h := range *headers {
			name, value, ok := strings.Cut(h, ":")
			if !ok {
				return usage(fmt.Errorf("-H %q: must be 'name: value'", printable(h)))
			}
			req.Headers = append(req.Headers, &api.RoutesRequest_Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.Routes(c.Context(), req)
			if err != nil {
				return err
			}
			if o != "text" {
				return showResult(c, o, answer, answer.GetRoute())
			}
			return printRoute(c, req.GetAuthority(), answer)
		})
	}
	return c
}

// retriesText names conditions as Envoy's retry_on does.
func retriesText(r *api.RoutesResponse_Retries) string {
	if r.GetMost() == 0 {
		return "no retries"
	}
	text := "at most " + counted(int(r.GetMost()), "retry", "retries")
	if r.GetPerTry() != nil {
		text += fmt.Sprintf(", each attempt within %s", r.GetPerTry().AsDuration())
	}
	text += ", on " + strings.Join(r.GetOn(), ", ")
	if len(r.GetStatuses()) > 0 {
		text += " (" + strings.Trim(fmt.Sprint(r.GetStatuses()), "[]") + ")"
	}
	return text
}

// atOtherPorts is a host with the ports at which it is, for who asked for another one.
func atOtherPorts(authority string, r *api.RoutesResponse) string {
	host, _, _ := strings.Cut(authority, ":")
	var parts []string
	if len(r.GetPorts()) > 0 {
		parts = append(parts, "for requests at port "+listed(r.GetPorts()))
	}
	if len(r.GetTcpPorts()) > 0 {
		parts = append(parts, "for connections of tcp at port "+listed(r.GetTcpPorts()))
	}
	return host + " " + strings.Join(parts, ", and ") + " alone"
}

// listed are ports as people read them.
func listed(ports []uint32) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(ports), "[]"), " ", ", ")
}

// boundsText is what a callee's own proxy does with what comes through the caller's route, as
// far as it is less than that lets through.
func boundsText(own *api.RoutesResponse_Bounds, r *api.RoutesResponse) string {
	var parts []string
	if d := own.GetTimeout().AsDuration(); d > 0 && (r.GetTimeout() == nil || d < r.GetTimeout().AsDuration()) {
		parts = append(parts, fmt.Sprintf("answers 504 after %s", d))
	}
	if n := own.GetConnections(); n > 0 {
		parts = append(parts, fmt.Sprintf("has at most %d connections to the application", n))
	}
	if n := own.GetPending(); n > 0 && !r.GetConnections() {
		parts = append(parts, fmt.Sprintf("answers 503 where more than %d requests wait for one", n))
	}
	if n := own.GetRequests(); n > 0 && !r.GetConnections() {
		parts = append(parts, fmt.Sprintf("answers 503 beyond %d requests at a time", n))
	}
	return strings.Join(parts, ", ")
}

func printRoute(c *cobra.Command, authority string, r *api.RoutesResponse) error {
	var b strings.Builder
	switch {
	case r.GetConnections():
		fmt.Fprintf(&b, "connections of tcp to %s\n", r.GetVirtualHost())
		for _, p := range r.GetPlaces() {
			fmt.Fprintf(&b, "  the application connects to %s (its proxy has its way out at %s)\n", p.GetAt(), p.GetBeside())
		}
		if len(r.GetPlaces()) == 0 {
			b.WriteString("  where, is told when a proxy of the caller is connected\n")
		}
	case r.GetRoute() == "" && len(r.GetTcpPorts()) > 0 && len(r.GetPorts()) == 0, r.GetVirtualHost() == "" && len(r.GetPorts()) > 0:
		fmt.Fprintf(&b, "404: the caller has %s\n", atOtherPorts(authority, r))
	case r.GetVirtualHost() == "":
		b.WriteString("404: the caller declares no backend of this host\n")
	case r.GetRoute() == "":
		fmt.Fprintf(&b, "404: no route of %s takes it\n", r.GetVirtualHost())
	case r.GetStatus() != 0:
		fmt.Fprintf(&b, "%d: route %s of %s leads nowhere\n", r.GetStatus(), r.GetRoute(), r.GetVirtualHost())
	default:
		fmt.Fprintf(&b, "route %s of %s\n", r.GetRoute(), r.GetVirtualHost())
	}
	if r.GetAddress() != "" {
		fmt.Fprintf(&b, "  the service's address is %s, at which proxies with service_addresses have it, too\n", r.GetAddress())
	}
	total := uint32(0)
	for _, t := range r.GetTargets() {
		total += t.GetWeight()
	}
	for _, t := range r.GetTargets() {
		fmt.Fprintf(&b, "  to %s, %.4g %%\n", t.GetCluster(), 100*float64(t.GetWeight())/float64(max(1, total)))
		if own := boundsText(t.GetOwn(), r); own != "" {
			fmt.Fprintf(&b, "    whose proxy %s\n", own)
		}
	}
	if len(r.GetTargets()) > 0 && !r.GetConnections() {
		limit := "without a time-out"
		if r.GetTimeout() != nil {
			limit = "within " + r.GetTimeout().AsDuration().String()
		}
		fmt.Fprintf(&b, "  %s, %s\n", limit, retriesText(r.GetRetries()))
	}
	if host := r.GetHostRewrite(); host != "" {
		fmt.Fprintf(&b, "  host: %s\n", host)
	}
	if path := r.GetPathRewrite(); path != "" {
		fmt.Fprintf(&b, "  path: %s\n", path)
	}
	for _, p := range r.GetPassed() {
		fmt.Fprintf(&b, "not %s: %s\n", p.GetRoute(), p.GetWhy())
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(c.OutOrStdout(), printable(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}
