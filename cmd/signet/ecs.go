package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/ecs"
)

// newECS makes task definitions of Amazon ECS. It asks neither a server of ours nor AWS.
func newECS() *cobra.Command {
	c := group(&cobra.Command{
		Use:   "ecs",
		Short: "Task definitions of Amazon ECS, without App Mesh's Envoy",
		Example: `  signet ecs convert orders.json --server mesh.internal:8443 --trust root.crt --image IMAGE --diff
  signet ecs taskdef agent --image IMAGE > signet-agent.json`,
	})
	c.AddCommand(newConvert(), newTaskdef())
	return c
}

// convertOutputs: text is the definition.
var convertOutputs = []string{"text", "json"}

func newConvert() *cobra.Command {
	c := &cobra.Command{
		Use:   "convert FILE",
		Short: "Put Signet's agent in the place of App Mesh's Envoy",
		Long: `Reads a task definition of ECS, as register-task-definition takes and describe-task-definition
answers it, or a CloudFormation template, and writes it with Signet's agent in the place of App
Mesh's Envoy, as register-task-definition or CloudFormation takes it. What is not the proxy's stays
as it is, byte for byte; what cannot be converted is refused by name, and nothing is written.

Beside it, on standard error: what the task's role must be allowed to do and what not any more,
the objects to apply (--objects writes those alone), and what to know. --diff writes, in the place
of the definition, each line that changes and why; values of variables that are neither App Mesh's
nor Signet's are not shown. -o json has all of it. --image is what ` + "`make image`" + ` made, in a registry
that the tasks reach; --trust is ca/root.crt of what signet init made.`,
		Example: `  aws ecs describe-task-definition --task-definition orders > orders.json
  signet ecs convert orders.json --server mesh.internal:8443 --trust root.crt --image IMAGE --diff
  signet ecs convert orders.json --server mesh.internal:8443 --trust root.crt --image IMAGE > new.json
  signet ecs convert stack.yaml --server mesh.internal:8443 --trust root.crt --image IMAGE -o json
  signet ecs convert - --server mesh.internal:8443 --trust root.crt --image IMAGE --objects | signet apply -f -`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		Args: exactArgs("a file with a task definition, or - for standard input"),
	}
	var o ecs.Options
	c.Flags().StringVar(&o.Server, "server", "", "the server's address as the tasks reach it, host:port")
	trust := c.Flags().String("trust", "", "file with the trust domain's root certificate")
	c.Flags().StringVar(&o.Image, "image", "", "image of Signet's agent")
	out := c.Flags().String("way-out", "", "how the application calls through the proxy: redirect keeps proxyConfiguration, http_proxy takes it out and sets that variable, none takes it out and leaves the calls to the application; by default redirect where the definition has proxyConfiguration, else http_proxy")
	c.Flags().StringSliceVar(&o.Applications, "application", nil, "container that is the application; by default what depends on the Envoy, else what has ports; may be repeated")
	diff := c.Flags().Bool("diff", false, "write the lines that change, and why, in the place of the definition")
	objects := c.Flags().Bool("objects", false, "write the manifests of the group and the binding alone")
	format := c.Flags().StringP("output", "o", "text", strings.Join(convertOutputs, " or "))
	for _, name := range []string{"server", "trust", "image"} {
		_ = c.MarkFlagRequired(name) // fails only for an undefined flag
	}
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(convertOutputs, cobra.ShellCompDirectiveNoFileComp)) // the same
	_ = c.RegisterFlagCompletionFunc("way-out", cobra.FixedCompletions(ecs.WaysOut, cobra.ShellCompDirectiveNoFileComp))   // the same
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(convertOutputs, *format) {
			return usage(fmt.Errorf("-o %s: must be %s", *format, strings.Join(convertOutputs, " or ")))
		}
		if *out != "" && !slices.Contains(ecs.WaysOut, *out) {
			return usage(fmt.Errorf("--way-out %s: must be %s", *out, strings.Join(ecs.WaysOut, ", ")))
		}
		if *diff && *objects {
			return usage(errors.New("--diff and --objects: give one of them"))
		}
		root, err := readBounded(c.Context(), *trust)
		if err != nil {
			return fmt.Errorf("--trust: %w", err)
		}
		o.Root, o.WayOut = string(root), ecs.WayOut(*out)
		text, err := inputOf(c, args[0])
		if err != nil {
			return err
		}
		r, err := ecs.Convert(args[0], string(text), o)
		if err != nil {
			return hinted(err, "nothing was written; docs/TASKS.md has what is converted")
		}
		switch w := c.OutOrStdout(); {
		case *format == "json":
			e := json.NewEncoder(w)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			return e.Encode(r)
		case *objects:
			_, err = io.WriteString(w, r.Objects)
		case *diff:
			err = printLines(c, r)
		default:
			_, err = io.WriteString(w, r.Definition)
		}
		tellConverted(c.ErrOrStderr(), r)
		return err
	}
	return c
}

// inputOf reads a file, or standard input for -.
func inputOf(c *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return readInput(c)
	}
	return readBounded(c.Context(), name)
}

// printLines writes what changes, what has the same reasons under them.
func printLines(c *cobra.Command, r *ecs.Result) error {
	on := colors(c, c.OutOrStdout())
	var said []string
	for _, l := range r.Diff {
		var text strings.Builder
		whys := reasonsOf(l)
		for _, why := range whys {
			if !slices.Contains(said, why) {
				text.WriteString(printable(why) + "\n")
			}
		}
		said = whys
		color := red
		if l.Op == "+" {
			color = green
		}
		text.WriteString(paint(on, color, fmt.Sprintf("%s%5d  %s", l.Op, l.Number, printable(l.Text))) + "\n")
		if _, err := io.WriteString(c.OutOrStdout(), text.String()); err != nil {
			return err
		}
	}
	return nil
}

// reasonsOf are those of a line, as comments.
func reasonsOf(l ecs.Line) []string {
	var all []string
	for _, why := range append([]ecs.Change{{Path: l.Path, Reason: l.Reason}}, l.Also...) {
		text := "# " + why.Reason
		if why.Path != "" {
			text = "# " + why.Path + ": " + why.Reason
		}
		all = append(all, text)
	}
	return all
}

// tellConverted writes, for people, what goes with a definition; a standard error that is gone is ignored.
func tellConverted(w io.Writer, r *ecs.Result) {
	var b strings.Builder
	fmt.Fprintf(&b, "lines: %d written, %d taken out\n", r.Written, r.TakenOut)
	for _, i := range r.IAM {
		for _, s := range i.Add {
			fmt.Fprintf(&b, "IAM %s: add %s\n", i.Role, s)
		}
		for _, s := range i.Remove {
			fmt.Fprintf(&b, "IAM %s: remove %s\n", i.Role, s)
		}
		for _, s := range i.Execution {
			fmt.Fprintf(&b, "IAM execution role: %s\n", s)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	if r.Objects != "" {
		b.WriteString("objects: --objects writes the NodeGroup and the Binding for `signet apply -f -`\n")
	}
	for line := range strings.Lines(b.String()) {
		_, _ = fmt.Fprintln(w, printable(strings.TrimSuffix(line, "\n")))
	}
}

func newTaskdef() *cobra.Command {
	c := group(&cobra.Command{
		Use:   "taskdef",
		Short: "Task definitions of a server, and of a host's agent",
		Example: `  signet ecs taskdef server --image IMAGE > signet-server.json
  signet ecs taskdef agent --image IMAGE > signet-agent.json`,
	})
	c.AddCommand(
		newOwn(ecs.Server, "server", "Task definition of a server, on one host of ECS with EC2", `Writes the input of register-task-definition for a server. Its data is in /var/lib/signet of the host that has the
attribute signet.server (true), where signet init was run as the user 1338, and its configuration in /etc/signet there. The service has one task, and
stops it before it starts another: minimumHealthyPercent=0, maximumPercent=100.`),
		newOwn(ecs.Agent, "agent", "Task definition of the agent of each host of ECS with EC2", `Writes the input of register-task-definition for the agent of a host, for a service with the strategy DAEMON. Its
configuration, /etc/signet/agent.yaml of the host, names users for proxy_user and authz.user; tasks mount /run/signet of the host.`),
	)
	return c
}

// newOwn is a command for a definition that has Signet alone.
func newOwn(of func(ecs.Own) (string, error), name, short, long string) *cobra.Command {
	c := &cobra.Command{
		Use: name, Short: short, Long: long, Args: noArgs,
		Example: "  signet ecs taskdef " + name + " --image IMAGE > signet-" + name + ".json\n" +
			"  signet ecs taskdef " + name + " --image IMAGE --log-group mesh --region eu-central-1",
	}
	var o ecs.Own
	c.Flags().StringVar(&o.Image, "image", "", "image of it, in a registry that the hosts reach")
	c.Flags().StringVar(&o.LogGroup, "log-group", "", "log group of CloudWatch")
	c.Flags().StringVar(&o.Region, "region", "", "region of the log group")
	_ = c.MarkFlagRequired("image") // fails only for an undefined flag
	c.RunE = func(c *cobra.Command, _ []string) error {
		if (o.LogGroup == "") != (o.Region == "") {
			return usage(errors.New("--log-group and --region: give both, or none of them"))
		}
		text, err := of(o)
		if err != nil {
			return usage(err)
		}
		_, err = io.WriteString(c.OutOrStdout(), text)
		return err
	}
	return c
}
