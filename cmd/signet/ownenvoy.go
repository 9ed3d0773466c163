package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"signet.example/agent/envoy"
	"signet.example/agent/local"
	"signet.example/proxy"
)

func newEnvoy() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "envoy",
		Short:   "An Envoy that the agent does not start",
		Example: "  signet envoy bootstrap mesh/shop/virtualNode/web --bind 192.0.2.7 --admin /opt/web/admin.sock",
	})
	c.AddCommand(newEnvoyBootstrap())
	return c
}

func newEnvoyBootstrap() *cobra.Command {
	c := &cobra.Command{
		Use:   "bootstrap NODE",
		Short: "Print the bootstrap of an Envoy that the agent does not start",
		Long: `Prints what an Envoy starts with (envoy --config-path) that is to be the proxy of a virtual node or
gateway and is not started by the agent of its host: under systemd, in a container, by App Mesh's agent
(ENVOY_CONFIG_FILE). NODE is mesh/MESH/virtualNode/NAME, or virtualGateway, or its ARN. Asks no server:
a Binding that the process fits makes it the proxy (docs/ENVOY.md).`,
		Example: `  signet envoy bootstrap mesh/shop/virtualNode/web --bind 192.0.2.7 --admin /opt/web/admin.sock
  signet envoy bootstrap mesh/shop/virtualGateway/edge --bind 192.0.2.7 --admin /opt/edge/admin.sock`,
		Args: exactArgs("a NODE"),
	}
	var where proxy.Where
	c.Flags().StringVar(&where.Bind, "bind", "", "address of its listeners")
	c.Flags().StringVar(&where.App, "app", "", "address of the application, or unix:/folder/{port}.sock (default 127.0.0.1)")
	c.Flags().StringVar(&where.Egress, "egress", "", "where the application sends its own calls: ADDRESS:PORT or unix:/path (default port 15001 of --bind where that is a loopback address, else of 127.0.0.1)")
	c.Flags().StringVar(&where.EgressMode, "egress-mode", "", `mode of a socket of --egress: 0660 or 0600 (default 0660)`)
	admin := c.Flags().String("admin", "", "path of the Unix socket of its admin interface")
	sockets := c.Flags().String("socket-dir", local.SocketDir, "folder of the agent's sockets")
	for _, flag := range []string{"bind", "admin"} {
		_ = c.MarkFlagRequired(flag) // fails only for an undefined flag
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		ref, err := proxy.ParseRef(args[0])
		if err != nil {
			return usage(err)
		}
		for flag, path := range map[string]string{"admin": *admin, "socket-dir": *sockets} {
			if !filepath.IsAbs(path) || len(path) > proxy.MaxSocketPath {
				return usage(fmt.Errorf("--%s: want an absolute path of at most %d bytes, got %q", flag, proxy.MaxSocketPath, printable(path)))
			}
		}
		text, err := envoy.Own{Ref: ref, Where: where, Admin: *admin, XDSSocket: filepath.Join(*sockets, "xds.sock")}.Bootstrap()
		if err != nil {
			return usage(err)
		}
		_, err = fmt.Fprint(c.OutOrStdout(), text)
		return err
	}
	return c
}
