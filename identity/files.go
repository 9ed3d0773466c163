package identity

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Files has the agent keep the identity of an Entry in a credential folder, as the SPIFFE
// Filesystem Delivery standard has it. It names things of the host, and places none: where
// folders lie, whose they may be and which commands there are is in the agent's own file.
type Files struct {
	// Folder is its name among the host's.
	Folder string
	// Group: whoever is in the folder's group may read it, too.
	Group bool
	// Layouts are other forms beside the standard's, in order: each is a name that the
	// agent knows or does without.
	Layouts []string
	// Command is the name of one of the host's, run after each change; may be empty.
	Command string
}

// FilesSpec is the files part of an EntrySpec.
type FilesSpec struct {
	Folder  string   `yaml:"folder" json:"folder"`
	Mode    string   `yaml:"mode,omitempty" json:"mode,omitempty"`
	Layouts []string `yaml:"layouts,omitempty" json:"layouts,omitempty"`
	Command string   `yaml:"command,omitempty" json:"command,omitempty"`
}

// The layouts that there are.
const (
	LayoutPEM    = "pem"
	LayoutPKCS12 = "pkcs12"
)

var fileLayouts = []string{LayoutPEM, LayoutPKCS12}

// The modes that files may have: nobody else reads a key.
const (
	filesOwner = "0600"
	filesGroup = "0640"
)

// mostLayouts bounds what an agent is asked to write beside the standard's files.
const mostLayouts = 8

// TheTask is the selector of whatever is in a task that is attested as a whole.
var TheTask = Selector{Type: "signet", Value: "unit:task"}

// Build checks the spec; selectors are those of its entry.
func (s *FilesSpec) Build(selectors Selectors) (*Files, error) {
	if s == nil {
		return nil, nil
	}
	var errs []error
	if s.Mode != "" && s.Mode != filesOwner && s.Mode != filesGroup {
		errs = append(errs, NewFieldError("spec.files.mode", `%s: want "0600", the default, or "0640" for the folder's group, too`, Abbreviate(s.Mode)))
	}
	for i, name := range s.Layouts {
		if !slices.Contains(fileLayouts, name) {
			errs = append(errs, NewFieldError("spec.files.layouts["+strconv.Itoa(i)+"]", "%s: there are %s", Abbreviate(name), strings.Join(fileLayouts, " and ")))
		}
	}
	f := &Files{Folder: s.Folder, Group: s.Mode == filesGroup, Layouts: s.Layouts, Command: s.Command}
	return f, errors.Join(append(errs, f.check(selectors))...)
}

// check is what the agent asks again of what the server sent.
func (f *Files) check(selectors Selectors) error {
	if f == nil {
		return nil
	}
	var errs []error
	// A name that begins with a dot is the agent's own.
	if err := CheckName(f.Folder); err != nil || f.Folder[0] == '.' {
		errs = append(errs, NewFieldError("spec.files.folder", "%s: want a name of letters, digits, . _ and - that begins with no dot; the agent's configuration says where it lies", Abbreviate(f.Folder)))
	}
	if f.Command != "" {
		if err := CheckName(f.Command); err != nil {
			errs = append(errs, NewFieldError("spec.files.command", "%s: want the name of a command in the agent's configuration", Abbreviate(f.Command)))
		}
	}
	if len(f.Layouts) > mostLayouts {
		errs = append(errs, NewFieldError("spec.files.layouts", "%d, and %d are the most", len(f.Layouts), mostLayouts))
	}
	for i, name := range f.Layouts {
		if CheckName(name) != nil || slices.Contains(f.Layouts[:i], name) {
			errs = append(errs, NewFieldError("spec.files.layouts["+strconv.Itoa(i)+"]", "%s: want each layout's name once", Abbreviate(name)))
		}
	}
	if _, _, ok := filesOwnerOf(selectors); !ok {
		errs = append(errs, NewFieldError("spec.files", "every process of a file's owner can read it, whatever else it is, so that an entry with files has one selector, unix:uid:N, which is their owner, or in a task %s; this one has %s", TheTask, Abbreviate(strings.Join(selectors.Strings(), ", "))))
	}
	return errors.Join(errs...)
}

// FilesOwner is whose the files of an entry are: the user of its one selector, or whoever
// is in the task.
func (e Entry) FilesOwner() (uid uint32, task bool) {
	uid, task, _ = filesOwnerOf(e.Selectors)
	return uid, task
}

// filesOwnerOf reads the owner of files from the selectors of an entry. A file cannot ask
// its reader for more than the user, so nothing narrower may stand beside it.
func filesOwnerOf(selectors Selectors) (uid uint32, task, ok bool) {
	if slices.Contains(selectors, TheTask) {
		others := slices.ContainsFunc(selectors, func(s Selector) bool { return s != TheTask && s.Type != "ecs" })
		return 0, true, !others
	}
	if len(selectors) != 1 || selectors[0].Type != "unix" {
		return 0, false, false
	}
	number, found := strings.CutPrefix(selectors[0].Value, "uid:")
	n, err := strconv.ParseUint(number, 10, 32)
	return uint32(n), false, found && err == nil
}
