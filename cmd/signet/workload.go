package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/agent/local"
)

// newWorkload is about a process of this host, as its agent sees it.
func newWorkload() *cobra.Command {
	c := group(&cobra.Command{
		Use:   "workload",
		Short: "What the agent of this host sees of a process, and what it gives it",
		Long: `Asks the agent of this host, as root or the agent's own user: who may be told which
identities others can hold. The process is looked at as if it had just connected to the agent.`,
		Example: `  signet workload explain 4711
  signet workload suggest 4711 --group hosts --spiffe-id spiffe://prod.example/orders | signet apply -f -`,
	})
	c.AddCommand(newWorkloadExplain(), newWorkloadSuggest())
	return c
}

func newWorkloadExplain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain PID",
		Short: "Which identities a process is given, and why not others, or none",
		Long: `Shows the selectors that the agent sees of a running process, the Entries and Bindings that
fit it, those that nearly do with what differs, and why it is given nothing where that is so. The agent has
the Entries and Bindings of the NodeGroups that its host is in, and no others.
Exit codes: 0 it is given an identity, 3 none, 4 no agent answers, 5 this user may not ask.`,
		Example: `  signet workload explain 4711
  signet workload explain "$(systemctl show -P MainPID orders)"
  signet workload explain 4711 -o json`,
		Args:              exactArgs("a PID"),
		ValidArgsFunction: completePIDs,
	}
	textOrJSON(c)
	sockets := socketDirFlag(c)
	all := c.Flags().Bool("all", false, "all Entries and Bindings that do not fit, not the nearest alone")
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := textOrJSONOf(c)
		if err != nil {
			return err
		}
		p, err := lookAtProcess(c, *sockets, args[0], false)
		if err != nil {
			return err
		}
		if o == "json" {
			err = showJSON(c.OutOrStdout(), p)
		} else {
			err = printFacts(c, workloadFacts(p, *all))
		}
		if err == nil && p.Nothing != "" {
			err = different()
		}
		return err
	}
	return c
}

func socketDirFlag(c *cobra.Command) *string {
	dir := c.Flags().String("socket-dir", local.SocketDir, "folder of the agent's sockets")
	_ = c.MarkFlagDirname("socket-dir") // fails only for an undefined flag
	return dir
}

// lookAtProcess asks the agent.
func lookAtProcess(c *cobra.Command, socketDir, text string, others bool) (*local.Process, error) {
	pid, err := strconv.Atoi(text)
	if err != nil || pid <= 0 {
		return nil, usage(fmt.Errorf("%q is not a process id: want a number, as `pidof` and `systemctl show -P MainPID` print it", printable(text)))
	}
	p, err := local.Look(c.Context(), socketDir, pid, others)
	switch {
	case errors.Is(err, local.ErrNotAllowed):
		return nil, &exitError{err: err, code: exitDenied, hint: "run it as root (sudo), or as the agent's user"}
	case errors.Is(err, local.ErrNotRunning):
		return nil, &exitError{err: err, code: exitUnreachable, hint: "--socket-dir names the folder of the agent's sockets (socket_dir); agents of the release before do not answer"}
	case errors.Is(err, local.ErrRefused):
		return nil, hinted(err, "`ps -e -o pid,user,args` lists the processes of this host; the agent sees those of others with CAP_SYS_PTRACE (docs/AGENT.md)")
	}
	return p, err
}

// fewNear are shown without --all.
const fewNear = 5

func workloadFacts(p *local.Process, all bool) []fact {
	facts := []fact{{"process", processText(p)}}
	add := func(key, format string, args ...any) { facts = append(facts, fact{key, fmt.Sprintf(format, args...)}) }
	for _, s := range p.Selectors {
		add("has", "%s (%s)", s.Selector, traitText(s))
	}
	for _, m := range p.Missing {
		add("has not", "%s", m)
	}
	for _, h := range p.Fitting {
		what := fmt.Sprintf("%s, by %s %s", h.SPIFFEID, h.Kind, h.Name)
		switch {
		case h.Why != "":
			add("not given", "%s: %s", what, strings.Join(strings.Fields(h.Why), " "))
		case h.Until.IsZero():
			add("given", "%s; it is issued when the process asks for it", what)
		default:
			add("given", "%s, until %s", what, h.Until.UTC().Format("2006-01-02T15:04:05Z"))
		}
	}
	for i, n := range p.Near {
		if i == fewNear && !all {
			add("near", "and %d more that do not fit: --all", len(p.Near)-fewNear)
			break
		}
		add("near", "%s %s (%s): %s", n.Kind, n.Name, n.SPIFFEID, differsText(n.Differs))
	}
	for _, text := range p.Problems {
		add("not usable", "%s", text)
	}
	if p.Nothing != "" {
		add("nothing", "%s", p.Nothing)
		add("to do", "%s", p.ToDo)
	}
	return facts
}

func processText(p *local.Process) string {
	return fmt.Sprintf("%d, user %d, group %d, held by %s", p.PID, p.UID, p.GID, p.Mode)
}

func traitText(s local.Selector) string {
	lasts := map[string]string{"stable": "stable", "release": "changes with the next release", "start": "changes with the next start"}
	text := cmp.Or(lasts[s.Lasts], s.Lasts)
	if s.With != "" {
		text += "; shared with " + s.With
	}
	return text
}

// differsText is as "unix:uid:1000 wanted, has unix:uid:1001".
func differsText(list []local.Differs) string {
	var parts []string
	for _, d := range list {
		parts = append(parts, fmt.Sprintf("%s wanted, has %s", d.Wants, cmp.Or(strings.Join(d.Has, ", "), "none of its kind")))
	}
	return strings.Join(parts, "; ")
}

// completePIDs are the processes of this host, each with its program.
func completePIDs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	if len(args) > 0 {
		return nil, directive
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil, directive
	}
	var list []string
	for _, d := range all {
		if _, err := strconv.Atoi(d.Name()); err != nil {
			continue
		}
		command, err := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if name, _, _ := strings.Cut(string(command), "\x00"); err == nil && name != "" { // a thread of the kernel has none
			list = append(list, d.Name()+"\t"+printable(filepath.Base(name)))
		}
	}
	return list, directive
}
