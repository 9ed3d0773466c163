package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/agent/files"
	"signet.example/agent/local"
	"signet.example/internal/plain"
)

// newSVID is about what the Workload API gives to whoever types.
func newSVID() *cobra.Command {
	c := group(&cobra.Command{
		Use:   "svid",
		Short: "The identities of this shell, by the Workload API of the host's agent",
		Long: `Asks the agent of this host, or of another implementation of SPIFFE, as any
application does: what it gives is what an Entry lets processes of this user hold.`,
		Example: "  signet svid fetch\n  signet svid watch --dir /dev/shm/me",
	})
	c.AddCommand(newSVIDFetch(), newSVIDWatch())
	return c
}

func newSVIDFetch() *cobra.Command {
	c := &cobra.Command{
		Use: "fetch", Short: "Fetch X.509-SVIDs once, show them, and with --dir keep one in a folder", Args: noArgs,
		Example: "  signet svid fetch\n  signet svid fetch --dir /dev/shm/me --id spiffe://prod.example/db",
	}
	outputFlags(c)
	from := svidFlags(c)
	timeout := c.Flags().Duration("timeout", 10*time.Second, "how long to wait for an answer")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if _, err := outputOf(c); err != nil {
			return err
		}
		if err := from.check(c); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), *timeout)
		defer cancel()
		client, err := workloadapi.New(ctx, workloadapi.WithAddr(from.address()))
		if err != nil {
			return usage(fmt.Errorf("%s: %w", from.address(), err))
		}
		defer func() { _ = client.Close() }() // it was only asked
		answer, err := client.FetchX509Context(ctx)
		if err != nil {
			return from.refused(err)
		}
		if err := from.keep(answer); err != nil {
			return err
		}
		return show(c, svidView(answer))
	}
	return c
}

func newSVIDWatch() *cobra.Command {
	c := &cobra.Command{
		Use: "watch", Short: "Show X.509-SVIDs as they are renewed, and with --dir keep one in a folder", Args: noArgs,
		Example: "  signet svid watch\n  signet svid watch --dir /dev/shm/me -o json",
	}
	outputFlags(c)
	from := svidFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		o, err := outputOf(c)
		if err != nil {
			return err
		}
		if err := from.check(c); err != nil {
			return err
		}
		ctx, stop := context.WithCancelCause(c.Context())
		defer stop(nil)
		client, err := workloadapi.New(ctx, workloadapi.WithAddr(from.address()))
		if err != nil {
			return usage(fmt.Errorf("%s: %w", from.address(), err))
		}
		defer func() { _ = client.Close() }() // it was only asked
		err = client.WatchX509Context(ctx, &svidWatch{c: c, o: o, from: from, stop: stop})
		switch cause := context.Cause(ctx); {
		case c.Context().Err() != nil: // Ctrl-C
			return nil
		case cause != nil:
			return cause
		}
		return from.refused(err)
	}
	return c
}

// svidWatch shows and keeps each answer. Its methods are called by one goroutine.
type svidWatch struct {
	c    *cobra.Command
	o    string
	from *svidSource
	stop context.CancelCauseFunc
	t    *table
	lost bool
}

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (w *svidWatch) OnX509ContextUpdate(answer *workloadapi.X509Context) {
	w.lost = false
	if err := w.update(answer); err != nil {
		w.stop(err)
	}
}

func (w *svidWatch) update(answer *workloadapi.X509Context) error {
	if err := w.from.keep(answer); err != nil {
		return err
	}
	v := svidView(answer)
	if w.o != "table" && w.o != "wide" {
		if w.o == "json" {
			return showLine(w.c.OutOrStdout(), v.message)
		}
		return show(w.c, v)
	}
	if w.t == nil {
		t, err := tableOf(w.c, v)
		if err != nil {
			return err
		}
		w.t = t
	}
	return w.t.print(w.c.OutOrStdout(), v.rows)
}

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher: an agent that is
// restarted is waited for, and one that refuses is the end.
func (w *svidWatch) OnX509ContextWatchError(err error) {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		w.stop(w.from.refused(err))
	case codes.Canceled:
	default:
		if !w.lost {
			_, _ = fmt.Fprintf(w.c.ErrOrStderr(), "no answer, trying again: %s\n", plain.Clip(err.Error(), 300)) // for people
		}
		w.lost = true
	}
}

// svidSource is where SVIDs come from, and where one of them goes.
type svidSource struct {
	socket, dir, id *string
	layouts         *[]string
}

func svidFlags(c *cobra.Command) *svidSource {
	s := &svidSource{
		socket:  c.Flags().String("workload-socket", "", "the Workload API's Unix socket (default: SPIFFE_ENDPOINT_SOCKET, or else "+filepath.Join(local.SocketDir, "workload.sock")+")"),
		dir:     c.Flags().String("dir", "", "keep one in this credential folder, on a tmpfs and yours alone"),
		id:      c.Flags().String("id", "", "the SPIFFE ID of the one to keep, in the place of the first"),
		layouts: c.Flags().StringSlice("layouts", nil, "other forms in the folder: pem,pkcs12"),
	}
	_ = c.MarkFlagDirname("dir")                                                                                                 // fails only for an undefined flag
	_ = c.RegisterFlagCompletionFunc("id", cobra.NoFileCompletions)                                                              // the same
	_ = c.RegisterFlagCompletionFunc("layouts", cobra.FixedCompletions(files.LayoutNames(), cobra.ShellCompDirectiveNoFileComp)) // the same
	return s
}

func (s *svidSource) address() string {
	if *s.socket != "" {
		return "unix://" + *s.socket
	}
	return cmp.Or(os.Getenv(workloadapi.SocketEnv), "unix://"+filepath.Join(local.SocketDir, "workload.sock"))
}

// check refuses what goes together with nothing, before anybody is asked.
func (s *svidSource) check(*cobra.Command) error {
	if *s.socket != "" && !filepath.IsAbs(*s.socket) {
		return usage(fmt.Errorf("--workload-socket %s: want an absolute path", *s.socket))
	}
	if *s.dir == "" && (*s.id != "" || len(*s.layouts) > 0) {
		return usage(errors.New("--id and --layouts are about what is kept: name the folder with --dir"))
	}
	for _, l := range *s.layouts {
		if !slices.Contains(files.LayoutNames(), l) {
			return usage(fmt.Errorf("--layouts %s: there are %s", l, strings.Join(files.LayoutNames(), " and ")))
		}
	}
	if *s.dir == "" {
		return nil
	}
	dir, err := filepath.Abs(*s.dir)
	if err != nil {
		return err
	}
	*s.dir = dir
	return files.CheckOwn(dir)
}

// refused is why there is no answer, with what to do.
func (s *svidSource) refused(err error) error {
	switch status.Code(err) {
	case codes.PermissionDenied:
		return &exitError{err: fmt.Errorf("no identity for this shell: %w", err), code: exitDenied, hint: "an Entry of this host's group must fit it, as by unix:uid:" + fmt.Sprint(os.Getuid()) + "; the agent's log has what it saw of this process"}
	case codes.Unavailable, codes.DeadlineExceeded:
		return &exitError{err: fmt.Errorf("nobody answers at %s: %w", s.address(), err), code: exitUnreachable, hint: "is the agent running? Its socket is workload.sock in its socket_dir: --workload-socket"}
	}
	return err
}

// keep writes the folder, if there is to be one.
func (s *svidSource) keep(answer *workloadapi.X509Context) error {
	if *s.dir == "" {
		return nil
	}
	one := answer.DefaultSVID()
	if *s.id != "" {
		i := slices.IndexFunc(answer.SVIDs, func(v *x509svid.SVID) bool { return v.ID.String() == *s.id })
		if i < 0 {
			return fmt.Errorf("--id %s: this shell has no such identity", *s.id)
		}
		one = answer.SVIDs[i]
	}
	c := files.Credentials{ID: one.ID.String(), Trust: map[string][][]byte{}}
	var err error
	if c.Key, err = x509.MarshalPKCS8PrivateKey(one.PrivateKey); err != nil {
		return fmt.Errorf("encode the key of %s: %w", one.ID, err)
	}
	for _, cert := range one.Certificates {
		c.Chain = append(c.Chain, cert.Raw)
	}
	for _, b := range answer.Bundles.Bundles() {
		for _, root := range b.X509Authorities() {
			c.Trust[b.TrustDomain().Name()] = append(c.Trust[b.TrustDomain().Name()], root.Raw)
		}
	}
	return files.WriteOwn(*s.dir, c, *s.layouts)
}

func svidView(answer *workloadapi.X509Context) view {
	v := view{header: []string{"identity", "hint", "serial", "expiry"}, wide: []string{"not before", "trust domains"}, none: "no identity"}
	var domains []string
	for _, b := range answer.Bundles.Bundles() {
		domains = append(domains, b.TrustDomain().Name())
	}
	slices.Sort(domains)
	all := &structpb.ListValue{}
	for _, s := range answer.SVIDs {
		leaf := s.Certificates[0]
		serial := strings.ToLower(fmt.Sprintf("%x", leaf.SerialNumber.Bytes()))
		v.rows = append(v.rows, []string{s.ID.String(), cmp.Or(plain.Line(s.Hint), "-"), serial, plain.UTC(leaf.NotAfter), plain.UTC(leaf.NotBefore), strings.Join(domains, ",")})
		all.Values = append(all.Values, structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			"spiffeId": structpb.NewStringValue(s.ID.String()), "hint": structpb.NewStringValue(s.Hint), "serial": structpb.NewStringValue(serial),
			"notBefore": structpb.NewStringValue(leaf.NotBefore.UTC().Format(time.RFC3339)), "notAfter": structpb.NewStringValue(leaf.NotAfter.UTC().Format(time.RFC3339)),
		}}))
	}
	trust := &structpb.ListValue{}
	for _, td := range domains {
		trust.Values = append(trust.Values, structpb.NewStringValue(td))
	}
	v.message = &structpb.Struct{Fields: map[string]*structpb.Value{"svids": structpb.NewListValue(all), "trustDomains": structpb.NewListValue(trust)}}
	return v
}
