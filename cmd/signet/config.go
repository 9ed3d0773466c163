package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"signet.example/internal/sampled"
)

// readConfig decodes one YAML file strictly over v: an unknown key or a wrong
// type is an error with its line and a caret under it. No path, no file.
func readConfig(path string, v any) error {
	if path == "" {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(content, v, yaml.Strict()); err != nil {
		return hinted(configError(path, content, err), "the configuration was not read, nothing has started; docs/CONFIGURATION.md has the keys")
	}
	return nil
}

var (
	goTypes     = regexp.MustCompile(`cannot unmarshal (.+?) into Go (?:struct field \w+\.(\w+)|value) of type (\S+)`)
	badDuration = regexp.MustCompile(`^time: (.*duration (".*"))$`)
)

// configError says it without Go's types, and always with a line.
func configError(path string, content []byte, err error) error {
	msg := strings.TrimSpace(yaml.FormatError(err, false, true))
	if m := badDuration.FindStringSubmatch(msg); m != nil {
		for i, line := range strings.Split(string(content), "\n") {
			if strings.Contains(line, strings.Trim(m[2], `"`)) {
				return fmt.Errorf("%s:%d: %s; durations are like 30s, 10m or 1h", path, i+1, m[1])
			}
		}
	}
	msg = goTypes.ReplaceAllStringFunc(msg, func(s string) string {
		m := goTypes.FindStringSubmatch(s)
		return fmt.Sprintf("want %s, got %s", plainType(m[3]), plainType(m[1]))
	})
	return fmt.Errorf("%s:\n%s", path, msg)
}

// plainType is a Go type in an operator's words.
func plainType(t string) string {
	switch {
	case strings.HasPrefix(t, "[]"):
		return "a list"
	case strings.HasPrefix(t, "map"), strings.Contains(t, "."):
		return "keys and values"
	case strings.Contains(t, "int"), strings.Contains(t, "float"):
		return "a number"
	case t == "bool":
		return "true or false"
	}
	return "text"
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
		return level, usage(fmt.Errorf("--log-level %s: must be debug, info, warn or error", name))
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
		return nil, usage(fmt.Errorf("--log-format %s: must be text or json", format))
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

// set overwrites *at with the flag's value, where the flag was given.
func set[T any](c *cobra.Command, name string, at *T, value T) {
	if c.Flags().Changed(name) {
		*at = value
	}
}
