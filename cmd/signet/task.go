package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"signet.example/agent"
	"signet.example/internal/child"
	"signet.example/internal/manifest"
	"signet.example/internal/retry"
)

// newTask is the first process of a container with agent and Envoy.
func newTask() *cobra.Command {
	c := &cobra.Command{
		Use:   "task",
		Short: "Run agent and Envoy as a container of a task",
		Long: `Runs the agent of one task, an ECS or Fargate task or a pod, with its Envoy: the container's first
process. It is configured by the environment (docs/TASKS.md has the variables), or as agent is by a file.
Told to stop, it takes the task from its callers, goes on while the application does, and ends before
stop_timeout. An agent that crashed is started again; one that cannot run ends the container with its exit code.`,
		Example: `  SIGNET_SERVER=mesh:8443 SIGNET_TOKEN=… SIGNET_PROXY_MESH=shop SIGNET_PROXY_VIRTUAL_NODE=web signet task
  signet task --config /etc/signet/agent.yaml`,
		Args: noArgs,
	}
	flags := addAgentFlags(c)
	flags.task = true
	c.RunE = func(c *cobra.Command, _ []string) error {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGHUP) // the agent's
		defer signal.Stop(signals)
		if err := child.KeepSecret(); err != nil { // a token may be in the environment
			return err
		}
		cfg, err := flags.read() // what the agent would refuse is said once
		if err != nil {
			return err
		}
		log, err := logOf(c)
		if err != nil {
			return err
		}
		program, err := os.Executable()
		if err != nil {
			return err
		}
		first := child.First{
			Path: child.Self, Args: append([]string{program, "agent", "--task"}, given(c)...),
			Grace: cfg.KillAfter(), Again: startAgain(), Log: log,
		}
		code, err := first.Run(c.Context(), signals)
		if err == nil && code != exitOK {
			err = &exitError{err: errors.New("the agent ended"), code: code, quiet: true} // it has said why
		}
		return err
	}
	return c
}

// hintOfTask is where whoever configures a task finds its variables.
const hintOfTask = "docs/TASKS.md has the variable of each key"

// readTask reads what the environment of a task says over its file. What is wrong is then said of the
// variables, as whoever configures a task often has nothing else.
func readTask(cfg *agent.Config, file *settings) error {
	if cfg.Mode == agent.ModeHost {
		return usage(errors.New("mode: host in the file of a task: leave it out, or run `signet agent`"))
	}
	cfg.Mode = agent.ModeTask
	said, err := agent.FromEnvironment(os.Environ())
	if err != nil {
		return &exitError{err: err, code: exitUsage, hint: hintOfTask}
	}
	read, err := manifest.ReadSettings("the environment", said.File, cfg)
	if err == nil {
		err = read.Check(nil)
	}
	if err != nil {
		wrong := manifest.AsErrors(err)
		for i, e := range wrong {
			if name := said.Names[e.Field]; name != "" {
				wrong[i] = &manifest.Error{Field: name, Msg: e.Msg}
			}
		}
		return hinted(settingsError{wrong}, hintOfTask)
	}
	file.hint = hintOfTask
	if file.read == nil {
		if file.read, err = manifest.ReadSettings("", nil, cfg); err != nil {
			return err
		}
		for _, v := range agent.Variables() {
			file.read.Flag(v.Key, v.Key+" ("+v.Name+")")
		}
	}
	for key, name := range said.Names {
		file.read.Flag(key, name)
	}
	return nil
}

// given are the flags of the command line and of the environment, for another command that has them.
func given(c *cobra.Command) []string {
	var args []string
	c.Flags().Visit(func(f *pflag.Flag) { args = append(args, "--"+f.Name+"="+f.Value.String()) })
	return args
}

// mostCrashes in a row end the container: what supervises it may have another place for it.
const mostCrashes = 5

// startAgain is how often an agent is started again: not where it was told to stop (`signet agent stop`),
// or was refused, or its command line is.
func startAgain() func(code int, ran time.Duration) (time.Duration, bool) {
	policy := retry.Policy{First: 100 * time.Millisecond, Most: 10 * time.Second, Settled: 10 * time.Second}
	tries, failures := retry.Tries{Policy: policy}, 0
	return func(code int, ran time.Duration) (time.Duration, bool) {
		if failures++; ran >= policy.Settled {
			failures = 1
		}
		if code == exitOK || code == exitUsage || code == exitDenied || failures >= mostCrashes {
			return 0, false
		}
		return tries.Failed(ran, nil), true
	}
}
