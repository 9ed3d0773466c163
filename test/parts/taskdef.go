package parts

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"golang.org/x/sys/unix"
)

// TaskDefinition is what tests read of a task definition of ECS, as JSON or in a template of CloudFormation.
type TaskDefinition struct {
	Memory               json.Number           `yaml:"Memory"` // MiB, of the task
	ContainerDefinitions []ContainerDefinition `yaml:"ContainerDefinitions"`
	ProxyConfiguration   ProxyConfiguration    `yaml:"ProxyConfiguration"`
	Volumes              []struct {
		Name string `yaml:"Name"`
		Host struct {
			SourcePath string `yaml:"SourcePath"`
		} `yaml:"Host"`
	} `yaml:"Volumes"`
	NetworkMode string `yaml:"NetworkMode"`
	PidMode     string `yaml:"PidMode"`
}

// ContainerDefinition is one of its containers. Durations are in seconds, memory in MiB.
type ContainerDefinition struct {
	Name        string   `yaml:"Name"`
	Image       string   `yaml:"Image"`
	User        string   `yaml:"User"`
	Command     []string `yaml:"Command"`
	Essential   *bool    `yaml:"Essential"`
	Memory      int      `yaml:"Memory"`
	StopTimeout int      `yaml:"StopTimeout"`
	Environment []struct {
		Name  string `yaml:"Name"`
		Value string `yaml:"Value"`
	} `yaml:"Environment"`
	DependsOn []struct {
		ContainerName string `yaml:"ContainerName"`
		Condition     string `yaml:"Condition"`
	} `yaml:"DependsOn"`
	HealthCheck struct {
		Command  []string `yaml:"Command"`
		Interval int      `yaml:"Interval"`
		Timeout  int      `yaml:"Timeout"`
	} `yaml:"HealthCheck"`
	Ulimits []struct {
		Name      string `yaml:"Name"`
		SoftLimit int    `yaml:"SoftLimit"`
		HardLimit int    `yaml:"HardLimit"`
	} `yaml:"Ulimits"`
	MountPoints []struct {
		SourceVolume  string `yaml:"SourceVolume"`
		ContainerPath string `yaml:"ContainerPath"`
		ReadOnly      bool   `yaml:"ReadOnly"`
	} `yaml:"MountPoints"`
	ReadonlyRootFilesystem bool `yaml:"ReadonlyRootFilesystem"`
	LinuxParameters        struct {
		Capabilities struct {
			Add []string `yaml:"Add"`
		} `yaml:"Capabilities"`
		Tmpfs []struct {
			ContainerPath string `yaml:"ContainerPath"`
			Size          int    `yaml:"Size"`
		} `yaml:"Tmpfs"`
	} `yaml:"LinuxParameters"`
}

// ProxyConfiguration is what a task's platform redirects: ECS leads connections of its network
// namespace to its proxy by rules of the kernel, which nobody in the task has the right to make.
type ProxyConfiguration struct {
	Properties []struct {
		Name  string `yaml:"Name"`
		Value string `yaml:"Value"`
	} `yaml:"ProxyConfigurationProperties"`
}

// ReadTaskDefinition reads one, by its file's name a template of CloudFormation or not.
func ReadTaskDefinition(t testing.TB, file, text string) (d TaskDefinition) {
	t.Helper()
	var err error
	if strings.HasSuffix(file, ".json") {
		err = json.Unmarshal([]byte(text), &d)
	} else {
		var template struct {
			Resources map[string]struct {
				Properties TaskDefinition `yaml:"Properties"`
			} `yaml:"Resources"`
		}
		err = yaml.Unmarshal([]byte(text), &template)
		for _, of := range template.Resources {
			d = of.Properties
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return d
}

// Container returns the one of a name.
func (d TaskDefinition) Container(t testing.TB, name string) ContainerDefinition {
	t.Helper()
	i := slices.IndexFunc(d.ContainerDefinitions, func(c ContainerDefinition) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no container %s", name)
	}
	return d.ContainerDefinitions[i]
}

// Environ is what its environment has, and what the platform or the test gives it beside that.
func (c ContainerDefinition) Environ(beside map[string]string) []string {
	var all []string
	for _, e := range c.Environment {
		all = append(all, e.Name+"="+e.Value)
	}
	for name, value := range beside {
		all = append(all, name+"="+value)
	}
	return all
}

// IsEssential reports whether the task ends with the container.
func (c ContainerDefinition) IsEssential() bool { return c.Essential == nil || *c.Essential }

// Redirects reports whether anything is redirected.
func (p ProxyConfiguration) Redirects() bool { return len(p.Properties) > 0 }

// flagsOfRedirect are those of `signet redirect` that its properties are.
var flagsOfRedirect = map[string]string{
	"IgnoredUID": "--ignore-uid", "AppPorts": "--app-port", "ProxyIngressPort": "--ingress-port", "ProxyEgressPort": "--egress-port",
	"EgressIgnoredIPs": "--ignore-address", "EgressIgnoredPorts": "--ignore-port",
}

// Flags are those of `signet redirect` which do what the platform does.
func (p ProxyConfiguration) Flags() (all []string) {
	for _, of := range p.Properties {
		if of.Value != "" {
			all = append(all, flagsOfRedirect[of.Name], of.Value)
		}
	}
	return all
}

// Options of podman that a container has by its definition: what is said there and nothing else. A volume with a
// folder of the host has it below root; one without is the task's own, by this name before it.
func (c ContainerDefinition) Options(d TaskDefinition, task, root string) []string {
	args := []string{"--cap-drop", "all", "--security-opt", "no-new-privileges", "--ulimit", "nproc=4096:4096"}
	for _, name := range c.LinuxParameters.Capabilities.Add {
		args = append(args, "--cap-add", name)
	}
	if c.User != "" {
		args = append(args, "--user", c.User)
	}
	if c.Memory > 0 {
		args = append(args, "--memory", strconv.Itoa(c.Memory)+"m")
	}
	if c.ReadonlyRootFilesystem {
		args = append(args, "--read-only", "--read-only-tmpfs=false")
	}
	for _, of := range c.LinuxParameters.Tmpfs {
		args = append(args, "--tmpfs", of.ContainerPath+":rw,size="+strconv.Itoa(of.Size)+"m")
	}
	if len(c.Ulimits) == 0 {
		args = append(args, "--ulimit", "nofile=4096:4096") // podman's own is more than this process may have
	}
	for _, of := range c.Ulimits {
		args = append(args, "--ulimit", of.Name+"="+strconv.Itoa(within(of.Name, of.SoftLimit))+":"+strconv.Itoa(within(of.Name, of.HardLimit)))
	}
	if stop := c.StopTimeout; stop > 0 {
		args = append(args, "--stop-timeout", strconv.Itoa(stop))
	} else {
		args = append(args, "--stop-timeout", "30") // ECS's own
	}
	for _, m := range c.MountPoints {
		source, mode := task+"-"+m.SourceVolume, ""
		for _, v := range d.Volumes {
			if at := v.Host.SourcePath; v.Name == m.SourceVolume && at != "" {
				source = at
				if !strings.HasPrefix(at, "/sys/") { // the kernel's, of which a host has one
					source = root + at
				}
			}
		}
		if m.ReadOnly {
			mode = ":ro"
		}
		args = append(args, "--volume", source+":"+m.ContainerPath+mode)
	}
	if check := c.HealthCheck.Command; len(check) > 1 {
		text := check[1] // CMD-SHELL
		if check[0] == "CMD" {
			words, _ := json.Marshal(check[1:]) // strings
			text = string(words)
		}
		// Who runs it is whoever started the container: no timer of systemd's does.
		args = append(args, "--health-cmd", text, "--health-interval", "disable", "--health-timeout", strconv.Itoa(c.HealthCheck.Timeout)+"s")
	}
	for _, e := range c.Environment {
		args = append(args, "--env", e.Name+"="+e.Value)
	}
	return args
}

// within is a limit, or less where this process has less and lacks the right to raise it.
func within(name string, limit int) int {
	var has unix.Rlimit
	if name == "nofile" && unix.Getrlimit(unix.RLIMIT_NOFILE, &has) == nil {
		return int(min(uint64(limit), has.Max)) //nolint:gosec // not more than limit
	}
	return limit
}
