package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// noArgs refuses arguments, and tells whoever names a file where files go.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("%s takes no argument, and got %q", c.CommandPath(), args[0])
	if c.Flags().Lookup("filename") != nil {
		err = fmt.Errorf("%w: name files with -f", err)
	}
	return usage(err)
}

// exactArgs needs each of the arguments, which are told by what they are.
func exactArgs(what ...string) cobra.PositionalArgs { return rangeArgs(len(what), what...) }

// rangeArgs needs the first of the arguments, and takes no more than there are.
func rangeArgs(needed int, what ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < needed {
			return usage(fmt.Errorf("%s needs %s", c.CommandPath(), strings.Join(what[len(args):needed], " and ")))
		}
		if len(args) > len(what) {
			return usage(fmt.Errorf("%s takes %s, and got %q more", c.CommandPath(), strings.Join(what, " and "), args[len(what)]))
		}
		return nil
	}
}

// needed refuses a command line without the flags that cobra knows as required. Its
// own check comes later, and its error has no type.
func needed(c *cobra.Command) error {
	var missing []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if required := f.Annotations[cobra.BashCompOneRequiredFlag]; len(required) == 1 && required[0] == "true" && !f.Changed {
			missing = append(missing, "--"+f.Name)
		}
	})
	if len(missing) > 0 {
		return usage(fmt.Errorf("needed and not given: %s", strings.Join(missing, ", ")))
	}
	return nil
}

// group makes a command that only has commands below it: an unknown one of them
// is an error, not a help text.
func group(c *cobra.Command) *cobra.Command {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		msg := fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath())
		for i, s := range c.SuggestionsFor(args[0]) {
			if i == 0 {
				msg += "; did you mean"
			}
			msg += " " + s
		}
		return usage(fmt.Errorf("%s", msg))
	}
	c.SuggestionsMinimumDistance = 2
	return c
}
