package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
)

// waitMost is how long --wait without a value waits: an Envoy answers within milliseconds, and one
// host after the other is tried where some refuse.
const waitMost = 30 * time.Second

// waitFlag has a command wait for the proxies that its change concerns. What it returns is how
// long at most, 0 for not at all.
func waitFlag(c *cobra.Command) func(dry bool) (time.Duration, error) {
	wait := c.Flags().Duration("wait", 0, "wait until each proxy that the change concerns has it or has refused it, at most this long")
	c.Flags().Lookup("wait").NoOptDefVal = waitMost.String()
	_ = c.RegisterFlagCompletionFunc("wait", cobra.NoFileCompletions) // fails only for an undefined flag
	return func(dry bool) (time.Duration, error) {
		waits := c.Flags().Changed("wait")
		switch {
		case waits && dry:
			return 0, usage(errors.New("--wait does not go with --dry-run: nothing is written that a proxy could have"))
		case waits && *wait <= 0:
			return 0, usage(fmt.Errorf("--wait=%s: must be more than nothing, such as --wait=%s", *wait, waitMost))
		}
		return *wait, nil
	}
}

// waitFor waits until the proxies that a change concerns have answered, and notes in its answer
// what each did.
func waitFor(c *cobra.Command, admin api.AdminClient, answer *api.ApplyResponse, most time.Duration) error {
	if answer.GetEffect() == nil {
		return hinted(errors.New("it is stored, but the server does not tell whose proxies it concerns"), "upgrade the server; `signet proxies` shows what each has")
	}
	answer.Progress = &api.ProgressResponse{}
	if len(answer.GetEffect().GetNodes()) == 0 {
		answer.Progress.Settled = true
		return nil
	}
	ctx, cancel := context.WithTimeout(c.Context(), most)
	defer cancel()
	stream, err := admin.Progress(ctx, &api.ProgressRequest{Nodes: answer.GetEffect().GetNodes()})
	if err != nil {
		return notKnown(answer, err)
	}
	line := newProgress(c)
	defer line.end()
	for heard := false; ; heard = true {
		now, err := stream.Recv()
		switch {
		case err == nil:
			answer.Progress = now
			line.say(fmt.Sprintf("waiting: %d of %s have it", len(inState(now, api.ProgressResponse_Proxy_APPLIED)), counted(len(now.GetProxies()), "proxy", "proxies")))
		case heard && (errors.Is(err, io.EOF) || status.Code(err) == codes.DeadlineExceeded): // what it said last counts
			return nil
		default:
			return notKnown(answer, err)
		}
	}
}

// notWaitedFor is what a wait leaves out of a change: of a policy source only where it is fetched from
// is stored with it.
func notWaitedFor(answer *api.ApplyResponse) (notes []string) {
	for _, c := range answer.GetChanges() {
		if c.GetKind() != "PolicySource" || c.GetAction() == api.Change_UNCHANGED {
			continue
		}
		sync := ""
		if c.GetAction() != api.Change_DELETED {
			sync = fmt.Sprintf("its policy is fetched after this, and `signet policy sync %s` fetches and tests it now; ", c.GetName())
		}
		notes = append(notes, fmt.Sprintf("the policy of policysource/%s is not waited for: %s`signet get agents -o wide` shows under POLICY which revision each agent has loaded", c.GetName(), sync))
	}
	return notes
}

// notKnown is the end of a wait that has no answer.
func notKnown(answer *api.ApplyResponse, err error) error {
	return &exitError{
		err: fmt.Errorf("it is stored as revision %d, but whether proxies have it is not known: %w", answer.GetRevision(), err), code: exitCode(err),
		hint: "`signet proxies` shows what each has",
	}
}

func inState(p *api.ProgressResponse, s api.ProgressResponse_Proxy_State) (list []*api.ProgressResponse_Proxy) {
	for _, one := range p.GetProxies() {
		if one.GetState() == s {
			list = append(list, one)
		}
	}
	return list
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// showProgress writes how a wait ended.
func showProgress(w io.Writer, answer *api.ApplyResponse) error {
	p := answer.GetProgress()
	var lines []string
	for _, one := range p.GetProxies() {
		who := fmt.Sprintf("proxy %s of %s at agent %s", one.GetName(), callerName(one.GetNode()), one.GetAgent())
		switch one.GetState() {
		case api.ProgressResponse_Proxy_REFUSED:
			for _, r := range one.GetRefused() {
				lines = append(lines, fmt.Sprintf("%s refused %s %s: %s", who, kindOfType(r.GetTypeUrl()), r.GetName(), strings.Join(strings.Fields(r.GetMessage()), " ")))
			}
		case api.ProgressResponse_Proxy_WAITING:
			lines = append(lines, strings.TrimSuffix(fmt.Sprintf("%s has not answered: %s", who, one.GetWhy()), ": "))
		}
	}
	switch n := len(inState(p, api.ProgressResponse_Proxy_APPLIED)); {
	case len(answer.GetEffect().GetNodes()) == 0:
		lines = append(lines, "no proxy's configuration changes")
	case len(p.GetProxies()) == 0:
		lines = append(lines, "no proxy that it concerns is reported")
	case n == 1:
		lines = append(lines, "1 proxy has it")
	case n > 0:
		lines = append(lines, fmt.Sprintf("%d proxies have it", n))
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, printable(l)); err != nil {
			return err
		}
	}
	return nil
}

// unreached is nil where every proxy has a change that was waited for. back is how it is taken back.
func unreached(answer *api.ApplyResponse, back func() string, most time.Duration) error {
	var parts []string
	if n := len(inState(answer.GetProgress(), api.ProgressResponse_Proxy_REFUSED)); n > 0 {
		parts = append(parts, counted(n, "proxy", "proxies")+" refused it")
	}
	if n := len(inState(answer.GetProgress(), api.ProgressResponse_Proxy_WAITING)); n > 0 {
		parts = append(parts, fmt.Sprintf("%s did not answer within %s", counted(n, "proxy", "proxies"), most))
	}
	if parts == nil {
		if !answer.GetProgress().GetSettled() {
			return hinted(fmt.Errorf("it was still on its way from host to host after %s", most), "`signet proxies` shows what each has")
		}
		return nil
	}
	stored, next := "it was stored before", "`signet history` which revision it came with" // the newest revision is another's
	if anyChange(answer) {
		stored, next = fmt.Sprintf("it is stored as revision %d", answer.GetRevision()), back()
	}
	return hinted(errors.New(strings.Join(parts, ", ")), stored+", and who refused it goes on with what it had; `signet proxies` shows what each has, "+next)
}

// takenBack returns how a change is taken back that was stored last as revision stored, after before: a
// rollback would undo what others stored since, too.
func takenBack(ctx context.Context, admin api.AdminClient, before, stored uint64) string {
	back := fmt.Sprintf("`signet rollback %d` takes it back", before)
	past, err := admin.History(ctx, &api.HistoryRequest{Limit: fewRevisions})
	if err != nil {
		return back + ", with all that was stored since: --dry-run shows it"
	}
	var later []string
	for _, r := range past.GetRevisions() {
		if r.GetRevision() > stored {
			later = append(later, fmt.Sprintf("revision %d by %s (%s)", r.GetRevision(), r.GetActor(), changesText(r)))
		}
	}
	switch n := len(later); {
	case n == 0:
		return back
	case n > fewChanges:
		later = append(later[:fewChanges], fmt.Sprintf("%d more", n-fewChanges))
	}
	return back + ", and undoes what came since: " + strings.Join(later, ", ") + "; --dry-run shows it, and the files of before applied again take back this change alone"
}

func anyChange(answer *api.ApplyResponse) bool {
	return slices.ContainsFunc(answer.GetChanges(), func(c *api.Change) bool { return c.GetAction() != api.Change_UNCHANGED })
}

// showing is what a command does with its answer.
type showing struct {
	format string
	dry    bool
	most   time.Duration // of a wait; 0 for none
	// before is the revision that was there before the change, 0 for the one before the answer's.
	before uint64
}

// show shows what was changed, waits where that is wanted, and shows how that ended. One document has both.
func (t showing) show(c *cobra.Command, admin api.AdminClient, answer *api.ApplyResponse) error {
	if t.most == 0 {
		return showChanges(c, t.format, answer, t.dry)
	}
	document := t.format == "json" || t.format == "yaml"
	if !document {
		if err := showChanges(c, t.format, answer, false); err != nil {
			return err
		}
	}
	for _, note := range notWaitedFor(answer) {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), printable("note: "+note)) // stderr is gone: nobody to tell
	}
	waited := waitFor(c, admin, answer, t.most)
	if document {
		if err := showChanges(c, t.format, answer, false); err != nil {
			return err
		}
	}
	if waited != nil {
		return waited
	}
	if !document {
		w := c.OutOrStdout()
		if t.format == "name" { // which has names alone
			w = c.ErrOrStderr()
		}
		if err := showProgress(w, answer); err != nil {
			return err
		}
	}
	return unreached(answer, func() string {
		return takenBack(c.Context(), admin, cmp.Or(t.before, answer.GetRevision()-1), answer.GetRevision())
	}, t.most)
}
