package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/api"
	"signet.example/internal/durable"
	"signet.example/mesh/exporter"
)

func newExport() *cobra.Command {
	c := &cobra.Command{
		Use:   "export",
		Short: "Write what the server has of App Mesh for others to read",
		Long: `Writes the objects of App Mesh that the server has, after defaults, in a form that
others read: crd are manifests of appmesh.k8s.aws/v1beta2, without loss; aws is JSON,
one input of aws appmesh create-… after the other, in an order in which they can be
created; cfn is a CloudFormation template. What a form cannot say is listed on standard
error, and the exit code is 3.
Signet's own kinds are none of App Mesh's: signet get has them.`,
		Example: `  signet export -f crd > mesh.yaml
  signet export -f crd --mesh shop --to mesh/
  signet export -f cfn --mesh shop > template.yaml`,
		Args: noArgs,
	}
	socketFlag(c)
	form := c.Flags().StringP("format", "f", "crd", "form to write: "+strings.Join(exporter.Forms(), ", "))
	mesh := c.Flags().String("mesh", "", "only of this mesh")
	to := c.Flags().String("to", "", "folder for one file for each object, in place of standard output; none of them may exist")
	completeFlag(c, "mesh", "meshes")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(exporter.Forms(), cobra.ShellCompDirectiveNoFileComp)) // fails only for an undefined flag
	_ = c.MarkFlagDirname("to")                                                                                              // the same
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !slices.Contains(exporter.Forms(), *form) {
			return usage(fmt.Errorf("-f %s: must be one of %s", *form, strings.Join(exporter.Forms(), ", ")))
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.Get(c.Context(), &api.GetRequest{Kind: "all", Mesh: *mesh})
			if err != nil {
				return err
			}
			var stored []exporter.Stored
			for _, o := range answer.GetObjects() {
				stored = append(stored, exporter.Stored{Kind: o.GetKind(), Mesh: o.GetMesh(), Name: o.GetName(), Manifest: o.GetYaml()})
			}
			e, err := exporter.Write(*form, stored)
			if err != nil {
				return err
			}
			return writeExport(c, e, *to)
		})
	}
	return c
}

// writeExport writes all parts before it says what is not in them.
func writeExport(c *cobra.Command, e *exporter.Export, to string) error {
	if len(e.Parts) == 0 {
		return errors.New("the server has nothing of App Mesh to export")
	}
	if to != "" {
		if err := writeParts(e.Parts, to); err != nil {
			return err
		}
	} else {
		if _, err := c.OutOrStdout().Write(e.Text()); err != nil {
			return err
		}
	}
	if e.Others > 0 {
		_, _ = fmt.Fprintf(c.ErrOrStderr(), "%d objects of Signet's own kinds are not exported: signet get all -o yaml has them\n", e.Others) // stderr is gone: nobody to tell
	}
	for _, loss := range e.Losses {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), "lost: "+printable(loss)) // the same
	}
	if len(e.Losses) > 0 {
		return different()
	}
	return nil
}

// writeParts writes files that were not there.
func writeParts(parts []exporter.Part, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // for others to read
		return err
	}
	for _, p := range parts {
		if _, err := os.Lstat(filepath.Join(folder, p.File)); err == nil {
			return fmt.Errorf("%s is there already: name another folder", filepath.Join(folder, p.File))
		}
	}
	for _, p := range parts {
		if err := durable.WriteFile(filepath.Join(folder, p.File), p.Content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
