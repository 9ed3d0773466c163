package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
	"signet.example/mesh/placeholder"
)

func newImport() *cobra.Command {
	c := group(&cobra.Command{
		Use:   "import",
		Short: "Bring in what other meshes left behind",
		Example: `  signet import appmesh mesh/ --dry-run
  signet import appmesh mesh.yaml.template --set MESH_NAME=shop
  spire-server entry show -output json | signet import spire -`,
	})
	c.AddCommand(newImportAppMesh(), newImportSpire())
	return c
}

func newImportAppMesh() *cobra.Command {
	c := &cobra.Command{
		Use:   "appmesh FILE|FOLDER…",
		Short: "Bring in an App Mesh, with a report of every field",
		Long: `Reads what App Mesh's users have: manifests of appmesh.k8s.aws/v1beta2, the JSON that
aws appmesh create-… and update-… take and describe-… answers, CloudFormation
templates, whose parameters --set and --vars give, Terraform's state, as
terraform show -json writes it, and what Envoys of App Mesh's virtual nodes answer to
/config_dump: of one mesh best those of all nodes, which are joined. Manifests and JSON may be templates, too, with
placeholders: ${VAR}, {{ .VAR }}, $VAR (in JSON in a value's place).
The form of each file is told by its content. Reports of each object whether it is
complete, and of each field what became of it, then applies all of them in one call, or
nothing.

A field that the CRD does not have is dropped, as Kubernetes dropped it. Documents of
other kinds are counted. A placeholder without a value stays a text; where no text can
stand, or a name is not known, the object is incomplete. Nothing is written while an
object is incomplete, breaks a rule, or asks for what this version does not translate:
--partial applies the others, without what refers to those.

The policy of a mesh that is new here only observes: what it would deny is let through and
listed by signet decisions --denied, until its MeshOptions say authorization: enforce.
--enforce has it deny from the beginning. That of a mesh that is here stays as it is.

With --dry-run no server is asked; apply --dry-run checks -o crd against one.
Exit codes: 0 all of it is complete (and applied); 3 not all of it, with --dry-run or
--partial; 1 nothing was applied.`,
		Example: `  signet import appmesh mesh/ -R --dry-run
  signet import appmesh manifest.yaml.template --set MESH_NAME=shop --vars vars.env
  signet import appmesh mesh/ --dry-run -o crd | signet apply -f - --dry-run
  signet import appmesh spec.json --mesh shop --name web --set NAMESPACE=shop.local
  curl -s localhost:9901/config_dump | signet import appmesh - --dry-run
  signet import appmesh stack.yaml --set MeshName=shop --region eu-west-1
  kubectl get -o yaml meshes,virtualnodes,virtualrouters,virtualservices,virtualgateways,gatewayroutes,backendgroups -A | signet import appmesh -`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(fmt.Errorf("%s needs a file, a folder or - for standard input", c.CommandPath()))
			}
			return nil
		},
	}
	socketFlag(c)
	recursive := c.Flags().BoolP("recursive", "R", false, "read the folders in a folder, too")
	dry := c.Flags().Bool("dry-run", false, "report, write nothing, ask no server")
	enforce := c.Flags().Bool("enforce", false, "policies of a mesh that is new deny from the beginning; else they only observe")
	owner := c.Flags().String("owner", "", "whose the objects become, as apply --owner has it")
	partial := c.Flags().Bool("partial", false, "apply what is complete although not all is")
	set := c.Flags().StringArray("set", nil, "NAME=VALUE of a placeholder or parameter; may be repeated")
	vars := c.Flags().StringArray("vars", nil, "file of placeholders' values: NAME=VALUE lines, a YAML mapping, or the JSON of a stack's parameters; may be repeated")
	namespace := c.Flags().StringP("namespace", "n", "", "namespace of objects that name none, as kubectl's")
	of := c.Flags().String("mesh", "", "mesh of objects that name none, where there is more than one")
	other := otherFlags(c)
	_ = c.RegisterFlagCompletionFunc("owner", cobra.NoFileCompletions) // fails only for an undefined flag
	form := c.Flags().String("dialect", "", "form of all files, where their content does not tell it: "+strings.Join(importer.Forms(), ", "))
	c.Flags().StringP("output", "o", "text", strings.Join(importOutputs, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(importOutputs, cobra.ShellCompDirectiveNoFileComp))     // fails only for an undefined flag
	_ = c.RegisterFlagCompletionFunc("dialect", cobra.FixedCompletions(importer.Forms(), cobra.ShellCompDirectiveNoFileComp)) // the same
	completeFlag(c, "mesh", "meshes")
	c.RunE = func(c *cobra.Command, args []string) error {
		o, _ := c.Flags().GetString("output")
		if !slices.Contains(importOutputs, o) {
			return usage(fmt.Errorf("-o %s: must be one of %s", o, strings.Join(importOutputs, ", ")))
		}
		if *form != "" && !slices.Contains(importer.Forms(), *form) {
			return usage(fmt.Errorf("--dialect %s: must be one of %s", *form, strings.Join(importer.Forms(), ", ")))
		}
		options, err := other()
		if err != nil {
			return err
		}
		values, err := valuesOf(c.Context(), *vars, *set)
		if err != nil {
			return err
		}
		files, skipped, err := importFiles(c, args, *recursive)
		if err != nil {
			return err
		}
		report := importer.Read(files, importer.Options{Form: importer.Form(*form), Namespace: *namespace, Mesh: *of, Other: options, Values: values})
		report.Files = append(report.Files, skipped...)
		if err := allUsed(report, *set); err != nil {
			return err
		}
		return bringIn(c, report, bringing{output: o, owner: *owner, dry: *dry, partial: *partial, enforce: *enforce})
	}
	return c
}

// otherFlags are for forms whose commands say things beside their files.
func otherFlags(c *cobra.Command) func() (dialect.Options, error) {
	name := c.Flags().String("name", "", "name of the object whose JSON has only its spec")
	kind := c.Flags().String("kind", "", "kind of the object whose JSON does not tell it")
	router := c.Flags().String("router", "", "router of routes whose JSON names none")
	gateway := c.Flags().String("gateway", "", "gateway of gateway routes whose JSON names none")
	region := c.Flags().String("region", "", "AWS::Region of CloudFormation templates")
	account := c.Flags().String("account-id", "", "AWS::AccountId of CloudFormation templates")
	stack := c.Flags().String("stack-name", "", "AWS::StackName of CloudFormation templates")
	exports := c.Flags().StringArray("import-value", nil, "NAME=VALUE of what another stack exports; may be repeated")
	return func() (dialect.Options, error) {
		o := dialect.Options{Name: *name, Router: *router, Gateway: *gateway, Region: *region, AccountID: *account, StackName: *stack, Exports: map[string]string{}}
		for _, x := range *exports {
			name, value, ok := strings.Cut(x, "=")
			if !ok {
				return o, usage(fmt.Errorf("--import-value %s: must be NAME=VALUE", x))
			}
			o.Exports[name] = value
		}
		if *kind == "" {
			return o, nil
		}
		var err error
		if o.Kind, err = importer.KindOf(*kind); err != nil {
			return o, usage(fmt.Errorf("--kind: %w", err))
		}
		return o, nil
	}
}

// bringing is what is to be done with what was read.
type bringing struct {
	output, owner         string
	dry, partial, enforce bool
}

// bringIn applies what is complete, if that is wanted, and writes the report.
func bringIn(c *cobra.Command, report *importer.Report, b bringing) error {
	if len(report.Objects) == 0 && report.Done() {
		why := "no object of App Mesh in what was read"
		for _, f := range report.Files {
			if f.Why != "" {
				why += fmt.Sprintf("\n%s: %s", f.Name, f.Why)
			}
		}
		return errors.New(why)
	}
	var answer *api.ApplyResponse
	beginnings := report.Beginnings(!b.enforce)
	apply := !b.dry && len(report.Manifests()) > 0 && (b.partial || report.Done())
	var applyErr error
	if apply {
		applyErr = withAdmin(c, func(admin api.AdminClient) error {
			var err error
			if beginnings, err = ofNewMeshes(c.Context(), admin, beginnings); err != nil {
				return err
			}
			answer, err = admin.Apply(c.Context(), &api.ApplyRequest{Sources: sourcesOf(slices.Concat(report.Manifests(), beginnings)), Owner: b.owner})
			return err
		})
	}
	applyErr = asPlaced(report, applyErr)
	if answer != nil {
		answer.Warnings = unreported(report, answer.GetWarnings())
		report.Resolved() // the server has what the files have not
	}
	if err := showReport(c, b, report, beginnings, answer); err != nil {
		return err
	}
	switch {
	case applyErr != nil:
		return applyErr
	case report.Done():
		return nil
	case b.dry || apply:
		return different()
	}
	return hinted(errors.New("nothing was applied: not all of it is complete"), "see the report above; --partial applies the rest without it, --dry-run only reports")
}

// ofNewMeshes are those options whose mesh the server does not have: what a mesh that it has does
// is for who changes its options to say.
func ofNewMeshes(ctx context.Context, admin api.AdminClient, options []importer.Manifest) ([]importer.Manifest, error) {
	if len(options) == 0 {
		return nil, nil
	}
	answer, err := admin.Get(ctx, &api.GetRequest{Kind: string(mesh.KindMesh)})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(options), func(m importer.Manifest) bool {
		return slices.ContainsFunc(answer.GetObjects(), func(o *api.Object) bool { return o.GetName() == m.Object.Mesh })
	}), nil
}

// sourcesOf names each object's manifest by the object: its lines are not those of the file.
func sourcesOf(manifests []importer.Manifest) []*api.Source {
	var list []*api.Source
	for _, m := range manifests {
		list = append(list, &api.Source{File: objectName(m.Object.Kind, m.Object.Mesh, m.Object.Name), Content: m.Content})
	}
	return list
}

// ofManifest is how the server places what it says of a source.
var ofManifest = regexp.MustCompile(`^(\S+):[0-9]+:[0-9]+: (.*)`)

// places has what the server says with places of the files that were read, and not of the
// manifests that were made of them, which nobody has seen.
type places struct {
	report *importer.Report
	at     map[string]*importer.Object
}

func placesOf(report *importer.Report) places {
	p := places{report, map[string]*importer.Object{}}
	for _, m := range report.Manifests() {
		p.at[objectName(m.Object.Kind, m.Object.Mesh, m.Object.Name)] = m.Object
	}
	return p
}

// of is a line with the place of the finding that says the same, of this object if there is
// one, which the report has then, or else with the place where the object begins.
func (p places) of(line string) (placed string, reported bool) {
	m := ofManifest.FindStringSubmatch(line)
	if m == nil || p.at[m[1]] == nil {
		return line, false
	}
	o := p.at[m[1]]
	placed = fmt.Sprintf("%s:%d: %s: %s", o.File, o.Line, m[1], m[2])
	for _, f := range p.report.Findings {
		if f.File != o.File || f.Text == "" || !strings.HasSuffix(m[2], ": "+f.Text) {
			continue
		}
		if own := o.Has(f); own || !reported {
			placed, reported = fmt.Sprintf("%s:%d:%d: %s: %s", f.File, f.Line, f.Column, f.Field, f.Text), true
			if own {
				break
			}
		}
	}
	return placed, reported
}

// unreported are warnings of the server, except for those that the report has, too.
func unreported(report *importer.Report, warnings []string) []string {
	p := placesOf(report)
	var list []string
	for _, w := range warnings {
		if placed, reported := p.of(w); !reported {
			list = append(list, placed)
		}
	}
	return list
}

// asPlaced is an answer's error with places of the files.
func asPlaced(report *importer.Report, err error) error {
	s, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	p := placesOf(report)
	lines := strings.Split(s.Message(), "\n")
	for i := range lines {
		lines[i], _ = p.of(lines[i])
	}
	return status.Error(s.Code(), strings.Join(lines, "\n"))
}

// allUsed refuses a value of --set that nothing takes: of a misspelt name the default would hold.
// A file of values may have others' too.
func allUsed(report *importer.Report, flags []string) error {
	for _, s := range flags {
		if name, _, _ := strings.Cut(s, "="); slices.Contains(report.Unused, name) {
			return usage(fmt.Errorf("--set %s: no placeholder or parameter in the files has this name", name))
		}
	}
	return nil
}

// valuesOf are those of all files and flags; a later one holds over an earlier one, and
// flags over files.
func valuesOf(ctx context.Context, files, flags []string) (map[string]string, error) {
	values := map[string]string{}
	for _, f := range files {
		content, err := readBounded(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("--vars %w", err)
		}
		of, err := placeholder.ParseVars(f, content)
		if err != nil {
			return nil, fmt.Errorf("--vars: %w", err)
		}
		maps.Copy(values, of)
	}
	for _, s := range flags {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, usage(fmt.Errorf("--set %s: must be NAME=VALUE", s))
		}
		if err := placeholder.CheckName(name); err != nil {
			return nil, usage(fmt.Errorf("--set: %w", err))
		}
		if err := placeholder.CheckValue(value); err != nil {
			return nil, usage(fmt.Errorf("--set %s: %w", name, err))
		}
		values[name] = value
	}
	return values, nil
}
