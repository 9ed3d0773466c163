package parts

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
)

// ECSTask is a task of ECS and one of its containers, as its metadata endpoint (version 4) has them.
type ECSTask struct {
	ARN, Family, Revision string
	Container             string
	Labels                map[string]string // dockerLabels
	IPv4, IPv6            []string
	// EC2 is one on a host of EC2; else it is on Fargate, which names the cluster by its ARN.
	EC2 bool
}

// The cluster of tasks whose ARN is ECSTaskARN's.
const (
	ecsCluster = "shop-prod"
	ecsARN     = "arn:aws:ecs:eu-west-1:123456789012:"
)

// ECSTaskARN is that of a task of account 123456789012, by its id of 32 digits in hex.
func ECSTaskARN(id string) string { return ecsARN + "task/" + ecsCluster + "/" + id }

// ECSMetadata is one of these endpoints for a container: it serves until the test ends. It
// returns what the container has in ECS_CONTAINER_METADATA_URI_V4.
func ECSMetadata(t testing.TB, of ECSTask) string {
	t.Helper()
	mux := http.NewServeMux()
	serve := func(path string, value any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(value)
		})
	}
	serve("/v4/0123456789-42", of.container())
	serve("/v4/0123456789-42/task", of.task())
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL + "/v4/0123456789-42"
}

func (e ECSTask) cluster() string {
	if e.EC2 {
		return ecsCluster
	}
	return ecsARN + "cluster/" + ecsCluster
}

// container is the answer about the container itself.
func (e ECSTask) container() map[string]any {
	labels := map[string]string{
		"com.amazonaws.ecs.cluster": e.cluster(), "com.amazonaws.ecs.container-name": e.Container, "com.amazonaws.ecs.task-arn": e.ARN,
		"com.amazonaws.ecs.task-definition-family": e.Family, "com.amazonaws.ecs.task-definition-version": e.Revision,
	}
	maps.Copy(labels, e.Labels)
	network := map[string]any{
		"NetworkMode": "awsvpc", "IPv4Addresses": e.IPv4, "AttachmentIndex": 0, "MACAddress": "0a:de:f6:10:51:e5",
		"IPv4SubnetCIDRBlock": "192.0.2.0/24", "DomainNameServers": []string{"192.0.2.2"}, "DomainNameSearchList": []string{"eu-west-1.compute.internal"},
		"PrivateDNSName": "ip-192-0-2-3.eu-west-1.compute.internal", "SubnetGatewayIpv4Address": "192.0.2.1/24",
	}
	if e.IPv6 != nil {
		network["IPv6Addresses"], network["IPv6SubnetCIDRBlock"] = e.IPv6, "2001:db8:10::/64"
	}
	return map[string]any{
		"DockerId": "0123456789-42", "Name": e.Container, "DockerName": e.Container, "Image": "signet-agent", "ImageID": "sha256:0123",
		"Labels": labels, "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "Limits": map[string]any{"CPU": 10, "Memory": 128},
		"CreatedAt": "2026-10-08T20:09:11.44527186Z", "StartedAt": "2026-10-08T20:09:11.44527186Z", "Type": "NORMAL",
		"ContainerARN": ecsARN + "container/" + ecsCluster + "/0123456789abcdef0123456789abcdef/9f5c2d1a", "Networks": []any{network},
		"LogDriver": "awslogs", "LogOptions": map[string]string{"awslogs-group": "/ecs/web"}, "Snapshotter": "overlayfs",
	}
}

// task is the answer about the task.
func (e ECSTask) task() map[string]any {
	launch := "FARGATE"
	containers := []any{e.container()}
	if e.EC2 {
		launch = "EC2"
		containers = append(containers, map[string]any{"DockerId": "pause", "Name": "~internal~ecs~pause", "Type": "CNI_PAUSE"})
	}
	return map[string]any{
		"Cluster": e.cluster(), "TaskARN": e.ARN, "Family": e.Family, "Revision": e.Revision, "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING",
		"Limits": map[string]any{"CPU": 0.25, "Memory": 512}, "PullStartedAt": "2026-10-08T20:47:16.053330955Z", "PullStoppedAt": "2026-10-08T20:47:19.592684631Z",
		"AvailabilityZone": "eu-west-1a", "LaunchType": launch, "Containers": containers, "ServiceName": "web",
		"ClockDrift": map[string]any{"ClockErrorBound": 0.5, "ReferenceTimestamp": "2026-10-08T16:57:44Z", "ClockSynchronizationStatus": "SYNCHRONIZED"},
	}
}
