package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"signet.example/agent/envoy"
	"signet.example/agent/local"
	"signet.example/agent/resources"
	"signet.example/attestation"
	"signet.example/attestation/ecstask"
	"signet.example/internal/child"
	"signet.example/internal/netns"
)

// This file has what is another in a task than on a host: an ECS or Fargate task, or a pod,
// with an agent of its own.

// Mode is what the agent attests of who comes to its sockets.
type Mode string

const (
	// ModeHost: one agent for a host, which tells its processes apart.
	ModeHost Mode = "host"
	// ModeTask: an agent inside a task. The task is attested as a whole: its boundary is
	// its network namespace and the folder of the sockets, which nobody else enters.
	ModeTask Mode = "task"
)

func (m Mode) task() bool { return m == ModeTask }

// dataDir is the default of data_dir. A container's user often has no home.
func (m Mode) dataDir() string {
	if m.task() {
		return local.DataDir
	}
	return local.DefaultDataDir()
}

func (m Mode) validate(c Config, refuse func(key, format string, args ...any)) {
	switch {
	case m != ModeHost && m != ModeTask:
		refuse("mode", "want host or task, got %q", string(m))
	case m.task() && c.AppMesh.Given():
		refuse("app_mesh", "is for mode: host: in a task an Envoy that the agent does not start is not served")
	case !m.task() && c.IgnoreECSMetadata:
		refuse("ignore_ecs_metadata", "is for mode: task: on a host nothing is asked of ECS")
	case m.task() && c.RefuseLegacyPeers:
		refuse("refuse_legacy_peers", "is for mode: host: in a task no peer is held by its process")
	}
}

// stopMargin is left of stop_timeout when the last proxy has ended, for the agent's own end.
const stopMargin = 2 * time.Second

// What the parts of a task may have in memory, where a host's have more: tasks have from 512 MiB
// on, most of it for the application.
const (
	taskAuthzMiB = 96
	taskHeap     = 256 << 20
)

// heap is what a proxy may have in memory; 0 for the default of a host's.
func (m Mode) heap() uint64 {
	if m.task() {
		return taskHeap
	}
	return 0
}

// authzMiB is the default of authz.memory_limit.
func (m Mode) authzMiB() int64 {
	if m.task() {
		return taskAuthzMiB
	}
	return defaultAuthzMiB
}

// withStop fills what a task's end may take.
func (c Config) withStop() Config {
	if c.Mode.task() {
		c.StopTimeout = cmp.Or(c.StopTimeout, local.StopTimeout)
		left := c.StopTimeout - stopMargin - envoy.Grace - 2*cmp.Or(c.DrainTime, defaultDrain)
		c.DrainRequests = cmp.Or(c.DrainRequests, max(0, min(defaultRequests, left)))
	}
	return c
}

func (c Config) validateStop(refuse func(key, format string, args ...any)) {
	if need := 2*c.DrainTime + c.DrainRequests + envoy.Grace + stopMargin; c.Mode.task() && need > c.StopTimeout {
		refuse("stop_timeout", "%s is less than the %s that a proxy may take to end: twice drain_time (%s), drain_requests (%s) and %s", c.StopTimeout, need, c.DrainTime, c.DrainRequests, envoy.Grace+stopMargin)
	}
	if !c.Mode.task() && c.StopTimeout != 0 {
		refuse("stop_timeout", "is for mode: task: on a host the unit's TimeoutStopSec is longer than what drain_time and drain_requests say")
	}
}

// KillAfter is when an agent of a task that was told to stop is killed.
func (c Config) KillAfter() time.Duration {
	return c.withDefaults().StopTimeout - stopMargin/2
}

// outlive is how long after it was told to stop a proxy goes on for its application.
func (c Config) outlive() time.Duration {
	if !c.Mode.task() {
		return 0
	}
	return c.StopTimeout - stopMargin - envoy.Grace
}

// accessLogs is where access logs on a proxy's standard output go: in a task as they are to
// its own, where whoever ran App Mesh has them.
func (m Mode) accessLogs() io.Writer {
	if m.task() {
		return os.Stdout
	}
	return nil
}

// check is what an entry may ask of processes here.
func (m Mode) check() resources.Check {
	if m.task() {
		return attestation.CheckTask
	}
	return resources.OfProcesses
}

// folderMode is that of the folder of the sockets. On a host everybody may pass through it
// and nobody list it; a task's is the task's alone.
func (m Mode) folderMode() os.FileMode {
	if m.task() {
		return 0o700
	}
	return 0o711
}

// ownNamespace refuses a network namespace that is the host's: whoever is on the host would
// be in the task.
func (m Mode) ownNamespace() error {
	if m.task() && inHostNamespace() {
		return errors.New("mode: this is the network namespace of the host, and a task has one of its own (ECS: awsvpc; a pod without hostNetwork): run the agent there, or with mode: host here")
	}
	return nil
}

// inHostNamespace is netns.OfHost; tests say another.
var inHostNamespace = netns.OfHost

// letIn has the users of a task's proxies pass through the folder of the sockets. They are
// let in as a group, so that they must be of one.
func (c Config) letIn() error {
	if !c.Mode.task() {
		return nil
	}
	var in *child.User
	for i, p := range c.Proxies {
		switch {
		case !p.as.Other():
		case in != nil && in.GID != p.as.GID:
			return fmt.Errorf("proxies[%d].user: group %d, and the proxies before have group %d: one group is let into socket_dir of a task", i, p.as.GID, in.GID)
		default:
			in = p.as
		}
	}
	if in == nil {
		return nil
	}
	if err := envoy.LetThrough(c.SocketDir, in); err != nil {
		return fmt.Errorf("socket_dir: %w", err)
	}
	return nil
}

// withPlatform is the configuration with what ECS says of the task, and the address that follows.
func (c Config) withPlatform(ctx context.Context) (Config, error) {
	if c.Mode.task() && !c.IgnoreECSMetadata {
		var err error
		if c.platform, err = ecstask.Read(ctx); err != nil {
			return c, fmt.Errorf("what ECS says of this task, which ignore_ecs_metadata: true does without: %w", err)
		}
		c.Join.Task = c.platform.ARN
	}
	return c.withAddress(ctx)
}

// withAddress gives proxies of a task that name no address the task's own.
func (c Config) withAddress(ctx context.Context) (Config, error) {
	if !c.Mode.task() || !slices.ContainsFunc(c.Proxies, func(p Proxy) bool { return p.Bind == "" }) {
		return c, nil
	}
	own, why, err := c.platform.Address(ctx, c.Server)
	if err != nil {
		return c, fmt.Errorf("configuration: proxies[].bind is left out: %w", err)
	}
	c.Proxies = slices.Clone(c.Proxies)
	for i := range c.Proxies {
		if c.Proxies[i].Bind == "" {
			c.Proxies[i].Bind = own.String()
		}
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("configuration: with %s, %s, as bind: %w", own, why, err)
	}
	return c, nil
}
