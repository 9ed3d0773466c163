// Command signet is the whole of Signet in one binary: the server, the node
// agent, the demo, and what an operator types. Each command is one file here
// and only reads flags and files; the work is in the folders beside cmd.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
)

// stamped is set by the Makefile from git.
var stamped string

// version is the Makefile's, else what the toolchain knows: the module's version, or
// the commit that a plain `go build` was made of.
func version() string {
	info, _ := debug.ReadBuildInfo()
	return versionOf(stamped, info)
}

// versionOf takes a nil info, of a binary that has none.
func versionOf(stamped string, info *debug.BuildInfo) string {
	if stamped != "" || info == nil {
		return cmp.Or(stamped, "unknown")
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	setting := map[string]string{}
	for _, s := range info.Settings {
		setting[s.Key] = s.Value
	}
	if setting["vcs.modified"] == "true" {
		return short(setting["vcs.revision"]) + "-dirty"
	}
	return cmp.Or(short(setting["vcs.revision"]), "unknown")
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit code (see exit.go).
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	c, _, err := root.Find(args)
	if err != nil || !interruptible(c) {
		return execute(ctx, root)
	}
	code, done := untilInterrupted(ctx, func() int { return execute(ctx, root) })
	if !done { // nor may somebody read what is said of it
		_, _ = untilInterrupted(ctx, func() int { return tell(root, c, errInterrupted) })
	}
	return code
}

func newRoot() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "signet",
		Short: "Identity, routing and authorization for service meshes",
		Long: `Signet gives every workload a short-lived SPIFFE identity, configures Envoy
from App Mesh specs, and decides every call with Rego.

Exit codes: 0 done, 1 failed or interrupted, 2 the command line is wrong, 3 differences or
violations found (diff, check), 4 nobody answers, 5 denied.`,
		Example: `  signet dev                 # a whole mesh on this machine
  signet check               # what is wrong, and the command that fixes it
  signet explain <id>        # why a call was denied`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if mode, _ := c.Flags().GetString("color"); !slices.Contains(colorModes, mode) {
				return usage(fmt.Errorf("--color %s: must be auto, always or never", mode))
			}
			if err := readEnv(c); err != nil {
				return err
			}
			return needed(c)
		},
	})
	root.PersistentFlags().String("color", "auto", "auto, always or never; NO_COLOR is obeyed")
	_ = root.RegisterFlagCompletionFunc("color", cobra.FixedCompletions(colorModes, cobra.ShellCompDirectiveNoFileComp)) // fails only for an undefined flag
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagRefused(err) })
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "config", Title: "Configure:"},
		&cobra.Group{ID: "look", Title: "Look:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", newInit(), newServer(), newSigner(), newAgent(), newTask(), newDev(), newEnvoy(), newRedirect())
	add("config", newToken(), newApply(), newDiff(), newDelete(), newRollback(), newImport(), newExport(), newBan(), newPolicy(), newECS())
	add("look", newGet(), newProxies(), newProxy(), newRoutes(), newHistory(), newDecisions(), newExplain(), newWorkload(), newCheck(), newCerts(), newSVID())
	root.AddCommand(newAuthz(), newPolicyChild(), newDemoService(), newDemoGet(), newVersion())
	tellEnv(root)
	for _, c := range root.Commands() { // commands without arguments offer no files
		if c.ValidArgsFunction == nil && !c.HasSubCommands() {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	return root
}

// newVersion is --version for whoever types it as a command.
func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version, as --version does", Hidden: true, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "signet version %s\n", version())
			return err
		},
	}
}
