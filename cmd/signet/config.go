package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/internal/manifest"
	"signet.example/internal/sampled"
)

// settings is a configuration file, or none, and the flags that hold over it.
type settings struct {
	read *manifest.Settings
	hint string // what to read about the keys; "" for the usual
}

// readConfig decodes one YAML file strictly over v: an unknown key or a wrong
// type is an error with its place and a caret under it, which check returns with what is
// wrong with the values. No path, no file.
func readConfig(path string, v any) (settings, error) {
	if path == "" {
		return settings{}, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return settings{}, fmt.Errorf("--config: %w", err)
	}
	read, err := manifest.ReadSettings(path, content, v)
	if err != nil {
		return settings{}, settings{}.refused(err)
	}
	return settings{read: read}, nil
}

// set overwrites *at with the flag's value, where the flag was given.
func (s settings) set(c *cobra.Command, name string, at *string, value string) {
	if !c.Flags().Changed(name) {
		return
	}
	*at = value
	if s.read != nil {
		s.read.Flag(strings.ReplaceAll(name, "-", "_"), written(c, name))
	}
}

// check returns everything that is wrong: with the file, and with the values of file and
// flags as they were found to be.
func (s settings) check(found error) error {
	if s.read != nil {
		found = s.read.Check(found)
	}
	if found == nil {
		return nil
	}
	return s.refused(found)
}

func (s settings) refused(err error) error {
	return hinted(settingsError{manifest.AsErrors(err)}, cmp.Or(s.hint, "nothing has started; docs/CONFIGURATION.md has the keys, and --help the flags"))
}

// settingsError is the mistakes of a configuration file, each with its lines in the file.
type settingsError struct{ manifest.Errors }

func (e settingsError) Error() string {
	var lines []string
	for _, e := range e.Errors {
		lines = append(lines, e.Error())
		if e.Excerpt != "" {
			lines = append(lines, strings.TrimRight(e.Excerpt, "\n"))
		}
	}
	return strings.Join(lines, "\n")
}

// brief is an error for a log, which shows no lines of a file.
func brief(err error) error {
	if settings, ok := errors.AsType[settingsError](err); ok {
		return settings.Errors
	}
	return err
}

// logFlags adds --log-format and --log-level to a command that runs for long.
func logFlags(c *cobra.Command) {
	c.Flags().String("log-format", "text", "text or json")
	c.Flags().String("log-level", "info", "debug, info, warn or error")
}

func logOf(c *cobra.Command) (*slog.Logger, error) {
	level, err := levelOf(c, "")
	if err != nil {
		return nil, err
	}
	return logAt(c, level)
}

// levelOf is the level of flag or environment, else of the file, else the default.
func levelOf(c *cobra.Command, file string) (slog.Level, error) {
	name, _ := c.Flags().GetString("log-level")
	if file != "" && !c.Flags().Changed("log-level") {
		name = file
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return level, usage(fmt.Errorf("%s %s: must be debug, info, warn or error", written(c, "log-level"), name))
	}
	return level, nil
}

// logAt logs on standard error, in the format of the flag.
func logAt(c *cobra.Command, level slog.Leveler) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level}
	var out slog.Handler
	switch format, _ := c.Flags().GetString("log-format"); format {
	case "text":
		out = slog.NewTextHandler(c.ErrOrStderr(), opts)
	case "json":
		out = slog.NewJSONHandler(c.ErrOrStderr(), opts)
	default:
		return nil, usage(fmt.Errorf("%s %s: must be text or json", written(c, "log-format"), format))
	}
	bounded := sampled.NewHandler(out)
	cobra.OnFinalize(func() { bounded.Flush(context.WithoutCancel(c.Context())) })
	return slog.New(bounded), nil
}

// stopped drops the error of a run that ended because it was told to.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
