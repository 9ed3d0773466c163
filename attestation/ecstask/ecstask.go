// Package ecstask is what Amazon ECS says of the task in which this process runs, at its task
// metadata endpoint (version 4): which task it is, what it was made of, which addresses it has.
// That is unsigned and read inside the task: it is worth what the word of this process is worth.
// It must not know who asks for it, nor what evidence proves of a task (awstask, awscaller).
//
// Main types in reading order: Read, Task. Safe for concurrent use.
package ecstask

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/awsclient"
)

// Task is the task, and the container of it in which this process runs. The zero Task is one of
// which ECS says nothing.
type Task struct {
	ARN                       string
	Cluster, Family, Revision string
	Container                 string
	// Labels of the container (dockerLabels) that a selector can name, at most mostLabels of
	// them, the first by their names.
	Labels map[string]string
	// Networks have the addresses of each network of the task's own (awsvpc); on the network of a host there
	// is none.
	Networks [][]netip.Addr
}

// Known reports whether ECS said anything.
func (t Task) Known() bool { return t.ARN != "" }

// String is its cluster, family and revision, as prod/web:7; "" where nothing is known.
func (t Task) String() string {
	if !t.Known() {
		return ""
	}
	return t.Cluster + "/" + t.Family + ":" + t.Revision
}

const (
	mostLabels = 64
	// platforms begins the labels that ECS gives by itself.
	platforms = "com.amazonaws.ecs."
)

// container and task are what is read of the two answers.
type (
	container struct {
		Name     string            `json:"Name"`
		Labels   map[string]string `json:"Labels"`
		Networks []network         `json:"Networks"`
	}
	task struct {
		Cluster  string `json:"Cluster"`
		TaskARN  string `json:"TaskARN"`
		Family   string `json:"Family"`
		Revision string `json:"Revision"`
	}
	network struct {
		NetworkMode   string   `json:"NetworkMode"`
		IPv4Addresses []string `json:"IPv4Addresses"`
		IPv6Addresses []string `json:"IPv6Addresses"`
	}
)

// Parse reads the answers about the container and about its task, and refuses what contradicts itself.
func Parse(ofContainer, ofTask []byte) (Task, error) {
	var c container
	var of task
	if err := errors.Join(json.Unmarshal(ofContainer, &c), json.Unmarshal(ofTask, &of)); err != nil {
		return Task{}, err
	}
	arn, err := awsclient.ParseTaskARN(of.TaskARN)
	if err != nil {
		return Task{}, fmt.Errorf("field TaskARN: %w", err)
	}
	cluster, err := clusterOf(of.Cluster, arn)
	if err != nil {
		return Task{}, fmt.Errorf("field Cluster: %w", err)
	}
	if same := c.Labels[platforms+"task-arn"]; same != "" && same != of.TaskARN {
		return Task{}, errors.New("the container is said to be of another task than the one of /task")
	}
	for _, f := range [][3]string{{"Cluster", "cluster", cluster}, {"Family", "family", of.Family}, {"Revision", "revision", of.Revision}, {"Name", "container", c.Name}} {
		if !attestation.ECSForms.Has(selector(f[1], f[2])) {
			return Task{}, fmt.Errorf("field %s: %s is none", f[0], identity.Abbreviate(f[2]))
		}
	}
	t := Task{ARN: of.TaskARN, Cluster: cluster, Family: of.Family, Revision: of.Revision, Container: c.Name, Labels: labelsOf(c.Labels)}
	t.Networks, err = networksOf(c.Networks)
	return t, err
}

// clusterOf is the name of the cluster, which is given by itself or as an ARN, and which the
// task's ARN has as well.
func clusterOf(s string, of awsclient.TaskARN) (string, error) {
	if rest, ok := strings.CutPrefix(s, "arn:"); ok {
		begin := of.Partition + ":ecs:" + of.Region + ":" + of.Account + ":cluster/"
		if s, ok = strings.CutPrefix(rest, begin); !ok {
			return "", errors.New("it is of another account or region than the task")
		}
	}
	if of.Cluster != "" && s != of.Cluster {
		return "", fmt.Errorf("%s is another one than %s of the task's ARN", identity.Abbreviate(s), of.Cluster)
	}
	return s, nil
}

func labelsOf(all map[string]string) map[string]string {
	named := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if len(named) < mostLabels && !strings.Contains(key, ":") && !strings.HasPrefix(key, platforms) && attestation.ECSForms.Has(selector("label", key+":"+all[key])) {
			named[key] = all[key]
		}
	}
	return named
}

func networksOf(all []network) ([][]netip.Addr, error) {
	var list [][]netip.Addr
	for _, n := range all {
		if n.NetworkMode != "awsvpc" {
			continue
		}
		var of []netip.Addr
		for _, text := range slices.Concat(n.IPv4Addresses, n.IPv6Addresses) {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("field Networks: %s is not an address", identity.Abbreviate(text))
			}
			if a.IsGlobalUnicast() && !a.Is4In6() && a.Zone() == "" {
				of = append(of, a)
			}
		}
		if len(of) > 0 {
			list = append(list, of)
		}
	}
	return list, nil
}
