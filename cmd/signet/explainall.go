package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
)

// answersFlags are those by which an answer is found without its id. What it returns is nil
// where there is one.
func answersFlags(c *cobra.Command) func(args []string) (*api.DecisionFilter, error) {
	from := c.Flags().String("from", "", "of this caller: its SPIFFE ID, the end of it: MESH/NODE, or of one without an identity its address")
	to := c.Flags().String("to", "", "at this virtual node or gateway, in the same way, or to this host")
	since := c.Flags().Duration("since", 0, "of this time until now, as 10m; a day at most")
	at := c.Flags().String("at", "", "of about this time: 15:04, or 2006-01-02T15:04:05Z")
	for _, name := range []string{"from", "to"} {
		completeFlag(c, name, "virtualnodes")
	}
	for _, name := range []string{"since", "at"} {
		_ = c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // fails only for an undefined flag
	}
	return func(args []string) (*api.DecisionFilter, error) {
		f := &api.DecisionFilter{Source: *from, Destination: *to, Result: api.DecisionFilter_ANSWERED, Limit: 500}
		filtered := *from != "" || *to != "" || *since != 0 || *at != ""
		switch {
		case len(args) == 1 && filtered:
			return nil, errors.New("give the decision's ID, or --from, --to and a time, not both")
		case len(args) == 1:
			return nil, nil
		case !filtered:
			return nil, fmt.Errorf("%s needs the decision's ID, or --from, --to, --since or --at", c.CommandPath())
		case *since < 0:
			return nil, fmt.Errorf("--since %s: must not be negative", *since)
		case *since > 0 && *at != "":
			return nil, errors.New("--since and --at: give one of them")
		case *since > 0:
			f.Since = timestamppb.New(time.Now().Add(-*since))
		case *at != "":
			t, err := timeOf(*at, time.Now())
			if err != nil {
				return nil, fmt.Errorf("--at: %w", err)
			}
			f.Since, f.Until = timestamppb.New(t.Add(-time.Minute)), timestamppb.New(t.Add(2*time.Minute-1))
		}
		return f, nil
	}
}

// timeOf is the minute that a text names: a time of day is the last one that was.
func timeOf(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.Truncate(time.Minute), nil
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		day := now.UTC().Truncate(24 * time.Hour)
		t = day.Add(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute)
		if t.After(now) {
			t = t.Add(-24 * time.Hour)
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time, such as 14:03 or %s", text, now.UTC().Format(time.RFC3339))
}

// explainAll explains each kind of answer that a filter asks for, the newest first.
func explainAll(c *cobra.Command, admin api.AdminClient, f *api.DecisionFilter, o string) error {
	answer, err := admin.Decisions(c.Context(), &api.DecisionsListRequest{Filter: f})
	if err != nil {
		return err
	}
	tellSilent(c, answer.GetSilent())
	switch o {
	case "json", "yaml":
		return showMessage(c.OutOrStdout(), o, answer)
	case "name":
		return show(c, viewOf(answer))
	}
	if len(answer.GetDecisions()) == 0 {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), "no proxy of a connected agent answered such a call by itself: it was not made, or its application answered it") // stderr is gone: nobody to tell
	}
	for i, d := range answer.GetDecisions() {
		if i > 0 {
			if _, err := fmt.Fprintln(c.OutOrStdout()); err != nil {
				return err
			}
		}
		if err := printFacts(c, factsOf(d, o == "wide")); err != nil {
			return err
		}
	}
	return nil
}
