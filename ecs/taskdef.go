package ecs

import (
	"errors"
	"fmt"
	"strings"

	"signet.example/agent/local"
)

// Own are options of a definition that has Signet alone.
type Own struct {
	// Image is that of the server, or of the agent.
	Image string
	// LogGroup of CloudWatch, in Region; without one the host's default keeps the logs.
	LogGroup, Region string
}

func (o Own) check() error {
	switch {
	case o.Image == "" || strings.ContainsAny(o.Image, " \t\r\n\"\\"):
		return fmt.Errorf("image: want the image in a registry that the hosts reach, got %q", o.Image)
	case (o.LogGroup == "") != (o.Region == ""):
		return errors.New("log group and region are given together")
	}
	return nil
}

// logs is the line of where they go.
func (o Own) logs(prefix string) string {
	if o.LogGroup == "" {
		return ""
	}
	return fmt.Sprintf(`,
      "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": %s, "awslogs-region": %s, "awslogs-stream-prefix": %q}}`, quoted(o.LogGroup), quoted(o.Region), prefix)
}

// Server is the definition of a server on one host of ECS on EC2. Its data is on that host, since
// no file system of the network holds SQLite; the host has the attribute signet.server.
func Server(o Own) (string, error) {
	if err := o.check(); err != nil {
		return "", err
	}
	return fmt.Sprintf(`{
  "family": "signet-server",
  "networkMode": "host",
  "requiresCompatibilities": ["EC2"],
  "placementConstraints": [{"type": "memberOf", "expression": "attribute:signet.server == true"}],
  "volumes": [
    {"name": "configuration", "host": {"sourcePath": "/etc/signet"}},
    {"name": "data", "host": {"sourcePath": "/var/lib/signet"}}
  ],
  "containerDefinitions": [
    {
      "name": "signet-server",
      "image": %s,
      "command": ["server", "--config", "/etc/signet/server.yaml"],
      "environment": [{"name": "SIGNET_DATA_DIR", "value": "/var/lib/signet"}, {"name": "SIGNET_SOCKET", "value": "/var/lib/signet/admin.sock"}],
      "essential": true,
      "memory": 1024,
      "stopTimeout": %d,
      "readonlyRootFilesystem": true,
      "linuxParameters": {"capabilities": {"drop": ["ALL"]}, "tmpfs": [{"containerPath": "/tmp", "size": 64}]},
      "ulimits": [{"name": "nofile", "softLimit": 65536, "hardLimit": 65536}],
      "healthCheck": {"command": ["CMD", "signet", "get", "nodegroups"], "interval": 10, "timeout": 5, "retries": 3, "startPeriod": 60},
      "mountPoints": [
        {"sourceVolume": "configuration", "containerPath": "/etc/signet", "readOnly": true},
        {"sourceVolume": "data", "containerPath": "/var/lib/signet"}
      ]%s
    }
  ]
}
`, quoted(o.Image), usualStop, o.logs("server")), nil
}

// Agent is the definition of the agent of each host, for a service of the strategy DAEMON. It is
// root with four capabilities, as its unit has them (docs/AGENT.md), and sees the host's processes.
func Agent(o Own) (string, error) {
	if err := o.check(); err != nil {
		return "", err
	}
	return fmt.Sprintf(`{
  "family": "signet-agent",
  "networkMode": "host",
  "pidMode": "host",
  "requiresCompatibilities": ["EC2"],
  "volumes": [
    {"name": "configuration", "host": {"sourcePath": "/etc/signet"}},
    {"name": "data", "host": {"sourcePath": "%[3]s"}},
    {"name": "sockets", "host": {"sourcePath": "%[4]s"}},
    {"name": "cgroups", "host": {"sourcePath": "/sys/fs/cgroup"}}
  ],
  "containerDefinitions": [
    {
      "name": "signet-agent",
      "image": %[1]s,
      "user": "0",
      "command": ["agent", "--config", "/etc/signet/agent.yaml"],
      "essential": true,
      "memory": 512,
      "stopTimeout": 45,
      "readonlyRootFilesystem": true,
      "linuxParameters": {
        "capabilities": {"add": ["SYS_PTRACE", "SETUID", "SETGID", "KILL"], "drop": ["ALL"]},
        "tmpfs": [{"containerPath": "/tmp", "size": 64}]
      },
      "ulimits": [{"name": "nofile", "softLimit": 65536, "hardLimit": 65536}],
      "healthCheck": {"command": ["CMD", "signet", "agent", "health", "--wait", "4s"], "interval": 10, "timeout": 5, "retries": 3, "startPeriod": 30},
      "mountPoints": [
        {"sourceVolume": "configuration", "containerPath": "/etc/signet", "readOnly": true},
        {"sourceVolume": "data", "containerPath": "%[3]s"},
        {"sourceVolume": "sockets", "containerPath": "%[4]s"},
        {"sourceVolume": "cgroups", "containerPath": "/sys/fs/cgroup", "readOnly": true}
      ]%[2]s
    }
  ]
}
`, quoted(o.Image), o.logs("agent"), local.DataDir, local.SocketDir), nil
}
