package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"signet.example/api"
)

func newApply() *cobra.Command {
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Write resources from files: all of a call, or none",
		Long: `Reads App Mesh resources (appmesh.k8s.aws/v1beta2) and Signet's own
(signet.example/v1alpha1), checks all of them together with what is stored,
and writes all or none. What this version does not translate is refused by name.
With --owner what is written is noted to be that owner's, and with --prune what is the
owner's and not in the files any more is deleted, in the same change, unless a file could
not be read or has no object in it. What is another owner's is neither changed nor
deleted, unless --take-over makes it this one's.
Proxies get what was written a moment later, one host after the other, and an Envoy may
refuse it. With --wait the command ends when each proxy whose configuration the change
makes another one has it or has refused it, names those that refused it with Envoy's
words and those that did not answer, and exits with 1 if there are any. Where a policy
enforces from then on, or only observes, a proxy has it when its agent has loaded that and
its routes ask for it.`,
		Example: `  signet apply -f mesh/ -R
  signet apply -f mesh/ -R --wait
  signet apply -f mesh.yaml --dry-run
  signet apply -f mesh/ -R --owner shop-team --prune
  kubectl get -o yaml virtualnodes | signet apply -f - --skip-foreign`,
		Args: noArgs,
	}
	in := inputFlags(c)
	resultFlag(c)
	owner := ownerFlags(c)
	dry := c.Flags().Bool("dry-run", false, "tell the changes, write nothing")
	wait := waitFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		o, err := resultOf(c)
		if err != nil {
			return err
		}
		most, err := wait(*dry)
		if err != nil {
			return err
		}
		req := owner()
		req.DryRun, req.Concerned = *dry, most > 0
		return applySources(c, in, req, func(admin api.AdminClient, answer *api.ApplyResponse) error {
			return showing{format: o, dry: *dry, most: most}.show(c, admin, answer)
		})
	}
	return c
}

func newDiff() *cobra.Command {
	c := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "What apply would change; exit code 3 if anything",
		Long: `Checks the files as apply does, prints what it would change as a unified diff,
and writes nothing. Exit code 0: nothing to do. 3: differences. 1: apply would refuse.
With --effect it tells what the change does in place of its text: whose proxies get
another configuration, and which requests do not end as before. For each condition of
each route a request is made up that it takes and one that it does not, and foretold
before and after as signet routes does. Of listeners of protocol tcp it tells who may
connect, by the names in the handshake; the policy decides besides.`,
		Example: `  signet diff -f mesh/
  signet diff -f mesh/ -R --effect
  signet diff -f mesh.yaml -o name
  signet diff -f mesh.yaml && echo "nothing to do"`,
		Args: noArgs,
	}
	in := inputFlags(c)
	resultFlag(c)
	owner := ownerFlags(c)
	effect := c.Flags().Bool("effect", false, "which proxies and which requests it changes")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o, err := resultOf(c)
		if err != nil {
			return err
		}
		req := owner()
		req.DryRun, req.Effect = true, *effect
		return applySources(c, in, req, func(_ api.AdminClient, answer *api.ApplyResponse) error {
			answer.Changes = slices.DeleteFunc(answer.GetChanges(), func(ch *api.Change) bool { return ch.GetAction() == api.Change_UNCHANGED })
			switch {
			case *effect && answer.GetEffect() == nil:
				return hinted(errors.New("the server does not tell the effect of a change"), "upgrade it, or leave --effect out")
			case o != "text":
				if err := showChanges(c, o, answer, true); err != nil {
					return err
				}
			case *effect:
				warnOf(c.ErrOrStderr(), answer)
				if err := printEffect(c, answer.GetEffect()); err != nil {
					return err
				}
			default:
				warnOf(c.ErrOrStderr(), answer)
				for _, ch := range answer.GetChanges() {
					if err := printDiff(c, "stored", "given", ch); err != nil {
						return err
					}
				}
			}
			if len(answer.GetChanges()) > 0 {
				return different()
			}
			return nil
		})
	}
	return c
}

type input struct {
	files       *[]string
	recursive   *bool
	skipForeign *bool
}

func inputFlags(c *cobra.Command) input {
	in := fileFlags(c)
	in.skipForeign = c.Flags().Bool("skip-foreign", false, "count kinds of other API groups instead of refusing them")
	return in
}

func fileFlags(c *cobra.Command) input {
	socketFlag(c)
	in := input{
		files:     c.Flags().StringArrayP("filename", "f", nil, "file, folder (its .yaml, .yml and .json files) or - for standard input; may be repeated"),
		recursive: c.Flags().BoolP("recursive", "R", false, "read the folders in a folder, too"),
	}
	_ = c.MarkFlagFilename("filename", "yaml", "yml", "json") // fails only for an undefined flag
	return in
}

// ownerFlags are whose the objects are.
func ownerFlags(c *cobra.Command) func() *api.ApplyRequest {
	name := c.Flags().String("owner", "", "whose the objects become: a team, a repository")
	prune := c.Flags().Bool("prune", false, "delete what is of --owner and in no file any more")
	take := c.Flags().Bool("take-over", false, "also change what is of another owner: it becomes --owner's")
	_ = c.RegisterFlagCompletionFunc("owner", cobra.NoFileCompletions) // fails only for an undefined flag
	return func() *api.ApplyRequest { return &api.ApplyRequest{Owner: *name, Prune: *prune, TakeOver: *take} }
}

// applySources asks for the change that the flags name.
func applySources(c *cobra.Command, in input, req *api.ApplyRequest, then func(api.AdminClient, *api.ApplyResponse) error) error {
	if req.GetOwner() == "" && (req.GetPrune() || req.GetTakeOver()) {
		return usage(errors.New("--prune and --take-over need --owner NAME: whose objects are deleted, or become"))
	}
	sources, unread, err := in.read(c)
	if err != nil {
		return err
	}
	if req.GetPrune() && len(unread) > 0 {
		return hinted(fmt.Errorf("nothing is pruned where not all could be read: %s", strings.Join(unread, ", ")), "mend or remove these, read the folders in a folder with -R, and name those that links lead to with -f")
	}
	req.Sources, req.SkipForeign = sources, *in.skipForeign
	return withAdmin(c, func(admin api.AdminClient) error {
		answer, err := admin.Apply(c.Context(), req)
		if err != nil {
			return err
		}
		if len(answer.GetChanges()) == 0 && answer.GetSkippedForeign() == 0 {
			return fmt.Errorf("no resource in %s", strings.Join(*in.files, ", "))
		}
		if by := req.GetOwner(); by != "" && !slices.ContainsFunc(answer.GetChanges(), func(ch *api.Change) bool { return ch.GetOwner() == by }) {
			return hinted(errors.New("the server knows no owners: nothing was pruned, and what was written is nobody's"), "upgrade the server, then apply again")
		}
		return then(admin, answer)
	})
}

// read reads what the flags name, and returns what of it could not be read.
func (in input) read(c *cobra.Command) (sources []*api.Source, unread []string, err error) {
	if len(*in.files) == 0 {
		return nil, nil, usage(errors.New("no file is named: -f FILE, -f FOLDER or -f - for standard input"))
	}
	return readSources(c, *in.files, *in.recursive)
}

// warnOf writes the warnings of an answer a line each; an export's are counted.
func warnOf(w io.Writer, answer *api.ApplyResponse) {
	all, exported := answer.GetWarnings(), int(answer.GetExportedWarnings())
	warn(w, all[:max(0, len(all)-exported)])
	if exported > 0 {
		_, _ = fmt.Fprintf(w, "warning: %d fields that an API server wrote (status, metadata.uid and such) have no effect\n", exported) // stderr is gone: nobody to tell
	}
}

// placedText is what begins with a place in a file.
var placedText = regexp.MustCompile(`^(\S+:[0-9]+:[0-9]+): (.+)`)

// warn writes warnings a line each; what is said at several places is said at the first, with the others.
func warn(w io.Writer, warnings []string) {
	var first []string
	others := map[string][]string{} // places, by what is said
	for _, text := range warnings {
		m := placedText.FindStringSubmatch(text)
		if m == nil {
			first = append(first, text)
			continue
		}
		if _, said := others[m[2]]; said {
			others[m[2]] = append(others[m[2]], m[1])
			continue
		}
		others[m[2]] = nil
		first = append(first, text)
	}
	for _, text := range first {
		_, _ = fmt.Fprintln(w, "warning: "+printable(text)) // stderr is gone: nobody to tell
		if m := placedText.FindStringSubmatch(text); m != nil && len(others[m[2]]) > 0 {
			_, _ = fmt.Fprintln(w, printable("  the same at "+fewOf(others[m[2]]))) // the same
		}
	}
}

func readSources(c *cobra.Command, files []string, recursive bool) (out []*api.Source, lost []string, err error) {
	for _, f := range files {
		if f == "-" {
			content, err := readInput(c)
			if err != nil {
				return nil, nil, err
			}
			out = append(out, &api.Source{File: "-", Content: content})
			continue
		}
		paths, unread, err := manifestsIn(f, recursive)
		warn(c.ErrOrStderr(), unread.warnings(f))
		if err != nil {
			return nil, nil, err
		}
		for _, name := range slices.Concat(unread.folders, unread.devices, unread.links) {
			lost = append(lost, filepath.Join(f, name))
		}
		for _, p := range paths {
			content, err := readBounded(c.Context(), p)
			if err != nil {
				return nil, nil, err
			}
			out = append(out, &api.Source{File: p, Content: content})
		}
	}
	return out, lost, nil
}

func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name)))
}

// unread is what a folder has beside manifests that are read.
type unread struct {
	folders []string // without -R
	others  []string // with -R: files that do not end as manifests do
	devices []string // end so, and are no files
	links   []string // to folders, or to nothing, by other names than a manifest's
}

func (u unread) warnings(folder string) []string {
	var out []string
	say := func(form string, names []string) {
		if len(names) > 0 {
			out = append(out, fmt.Sprintf(form, folder, strings.Join(names, ", ")))
		}
	}
	say("folders in %s are not read: %s; name each with -f, or read all with -R", u.folders)
	say("files in %s that are no manifests are not read: %s", u.others)
	say("what is in %s and no regular file is not read: %s", u.devices)
	say("links in %s that lead to a folder, or to nothing, are not followed: %s", u.links)
	return out
}

// manifestsIn lists a folder's files, and what in it is not read.
func manifestsIn(path string, recursive bool) (files []string, not unread, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, not, fmt.Errorf("-f %s: %w", path, errors.Unwrap(err))
	}
	if !info.IsDir() {
		return []string{path}, not, nil
	}
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == path {
			return err
		}
		rel, err := filepath.Rel(path, name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case d.IsDir() && !recursive:
			not.folders = append(not.folders, rel)
			return filepath.SkipDir
		case d.IsDir():
		case isManifest(name) && regular(name):
			files = append(files, name)
		case isManifest(name):
			not.devices = append(not.devices, rel)
		case d.Type()&fs.ModeSymlink != 0 && !regular(name):
			not.links = append(not.links, rel)
		case recursive:
			not.others = append(not.others, rel)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s holds no .yaml, .yml or .json file", path)
	}
	return files, not, err // in the order of their names
}

// dryRun ends the line of what was not done.
const dryRun = " (dry run)"

// fewUnchanged are named each; more are counted, so that what changed is seen.
const fewUnchanged = 3

// showChanges writes what an apply or a delete did.
func showChanges(c *cobra.Command, format string, answer *api.ApplyResponse, dry bool) error {
	if format == "text" {
		warnOf(c.ErrOrStderr(), answer)
		return printChanges(c, answer, dry)
	}
	var names []string
	for _, ch := range answer.GetChanges() {
		names = append(names, objectName(ch.GetKind(), ch.GetMesh(), ch.GetName()))
	}
	if format == "name" { // JSON and YAML have the warnings in them
		warnOf(c.ErrOrStderr(), answer)
	}
	return showResult(c, format, answer, names...)
}

func printChanges(c *cobra.Command, answer *api.ApplyResponse, dry bool) error {
	w := c.OutOrStdout()
	suffix := ""
	if dry {
		suffix = dryRun
	}
	same := 0
	for _, ch := range answer.GetChanges() {
		if ch.GetAction() == api.Change_UNCHANGED {
			same++
		}
	}
	for _, ch := range answer.GetChanges() {
		if ch.GetAction() == api.Change_UNCHANGED && same > fewUnchanged {
			continue
		}
		if ch.GetAction() == api.Change_CONFIGURED {
			if err := printDiff(c, "stored", "given", ch); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "%s %s%s%s\n", objectName(ch.GetKind(), ch.GetMesh(), ch.GetName()), ch.GetActionWord(), newOwner(ch), suffix); err != nil {
			return err
		}
	}
	if same > fewUnchanged {
		if _, err := fmt.Fprintf(w, "%d objects unchanged%s\n", same, suffix); err != nil {
			return err
		}
	}
	if n := answer.GetSkippedForeign(); n > 0 {
		_, err := fmt.Fprintf(w, "%d of other API groups skipped\n", n)
		return err
	}
	return nil
}

// newOwner is whose an object is now, if it was another's.
func newOwner(ch *api.Change) string {
	switch {
	case ch.GetAction() != api.Change_CONFIGURED || ch.GetOwner() == ch.GetOwnerBefore():
		return ""
	case ch.GetOwner() == "":
		return ", nobody's now"
	}
	return ", of owner " + ch.GetOwner() + " now"
}

// printDiff of a change says before and after which names the two sides have.
func printDiff(c *cobra.Command, before, after string, ch *api.Change) error {
	name := objectName(ch.GetKind(), ch.GetMesh(), ch.GetName())
	on := colors(c, c.OutOrStdout())
	for line := range strings.Lines(udiff.Unified(before+"/"+name, after+"/"+name, ch.GetBefore(), ch.GetAfter())) {
		text := printable(strings.TrimSuffix(line, "\n"))
		switch {
		case strings.HasPrefix(text, "+"):
			text = paint(on, green, text)
		case strings.HasPrefix(text, "-"):
			text = paint(on, red, text)
		}
		if _, err := fmt.Fprintln(c.OutOrStdout(), text); err != nil {
			return err
		}
	}
	return nil
}

func objectName(kind, mesh, name string) string {
	if mesh == "" || strings.EqualFold(kind, "mesh") {
		return strings.ToLower(kind) + "/" + name
	}
	return strings.ToLower(kind) + "/" + mesh + "/" + name
}
