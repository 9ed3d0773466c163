package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// fromEnv are the flags that may come from the environment, in every command that
// has them: a flag wins over its variable, that over the file, that over the default.
var fromEnv = []string{
	"socket", "data-dir", "password-file", "listen", "server", "token-file", "socket-dir", "signer", "signer-user", "server-user", "log-format", "log-level",
}

// variable is a flag's name in the environment.
func variable(flag string) string {
	return "SIGNET_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// tellEnv names the variables in the help of a command and of those below it.
func tellEnv(c *cobra.Command) {
	for _, name := range fromEnv {
		if f := c.Flags().Lookup(name); f != nil {
			f.Usage += " [" + variable(name) + "]"
		}
	}
	for _, sub := range c.Commands() {
		tellEnv(sub)
	}
}

// byVariable is the annotation of a flag that its variable has set.
const byVariable = "signet_variable"

// written is what set a flag, as its user wrote it: itself, or its variable.
func written(c *cobra.Command, flag string) string {
	if f := c.Flags().Lookup(flag); f != nil && len(f.Annotations[byVariable]) == 1 {
		return f.Annotations[byVariable][0]
	}
	return "--" + flag
}

// readEnv sets the flags that were not given.
func readEnv(c *cobra.Command) error {
	for _, name := range fromEnv {
		f, value := c.Flags().Lookup(name), os.Getenv(variable(name))
		if f == nil || f.Changed || value == "" {
			continue
		}
		if err := c.Flags().Set(name, value); err != nil {
			return usage(fmt.Errorf("%s=%s: %w", variable(name), value, err))
		}
		if err := c.Flags().SetAnnotation(name, byVariable, []string{variable(name)}); err != nil {
			return err
		}
	}
	return nil
}

// clearEnv takes our variables from what children inherit: they are commands of
// this binary, too, and are told everything on their command line.
func clearEnv() {
	for _, name := range fromEnv {
		_ = os.Unsetenv(variable(name)) // fails for no name of ours
	}
}
