package identity_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

func TestAnEntryWithFilesNamesOneUserAndPlacesNothing(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("test.example")
	for name, tc := range map[string]struct {
		files     identity.FilesSpec
		selectors []string
		wrong     string // the field, "" for none
	}{
		"a user":             {identity.FilesSpec{Folder: "db"}, []string{"unix:uid:70"}, ""},
		"all of it":          {identity.FilesSpec{Folder: "db.main", Mode: "0640", Layouts: []string{"pem"}, Command: "reload"}, []string{"unix:uid:70"}, ""},
		"a task":             {identity.FilesSpec{Folder: "db"}, []string{"signet:unit:task"}, ""},
		"a task of ECS":      {identity.FilesSpec{Folder: "db"}, []string{"signet:unit:task", "ecs:family:db"}, ""},
		"a narrower one":     {identity.FilesSpec{Folder: "db"}, []string{"unix:uid:70", "unix:path:/usr/bin/db"}, "spec.files"},
		"a program":          {identity.FilesSpec{Folder: "db"}, []string{"unix:path:/usr/bin/db"}, "spec.files"},
		"a group":            {identity.FilesSpec{Folder: "db"}, []string{"unix:gid:70"}, "spec.files"},
		"two users":          {identity.FilesSpec{Folder: "db"}, []string{"unix:uid:70", "unix:uid:71"}, "spec.files"},
		"no folder":          {identity.FilesSpec{}, []string{"unix:uid:70"}, "spec.files.folder"},
		"a path":             {identity.FilesSpec{Folder: "/etc/db"}, []string{"unix:uid:70"}, "spec.files.folder"},
		"a way up":           {identity.FilesSpec{Folder: ".."}, []string{"unix:uid:70"}, "spec.files.folder"},
		"a hidden one":       {identity.FilesSpec{Folder: ".signet-stage"}, []string{"unix:uid:70"}, "spec.files.folder"},
		"a way up within":    {identity.FilesSpec{Folder: "a/../../b"}, []string{"unix:uid:70"}, "spec.files.folder"},
		"an end of a string": {identity.FilesSpec{Folder: "a\x00b"}, []string{"unix:uid:70"}, "spec.files.folder"},
		"a line":             {identity.FilesSpec{Folder: "a\nb"}, []string{"unix:uid:70"}, "spec.files.folder"},
		"a long one":         {identity.FilesSpec{Folder: strings.Repeat("a", 300)}, []string{"unix:uid:70"}, "spec.files.folder"},
		"others read it":     {identity.FilesSpec{Folder: "db", Mode: "0644"}, []string{"unix:uid:70"}, "spec.files.mode"},
		"a program to run":   {identity.FilesSpec{Folder: "db", Command: "/bin/sh"}, []string{"unix:uid:70"}, "spec.files.command"},
		"an unknown layout":  {identity.FilesSpec{Folder: "db", Layouts: []string{"jks"}}, []string{"unix:uid:70"}, "spec.files.layouts[0]"},
		"a layout twice":     {identity.FilesSpec{Folder: "db", Layouts: []string{"pem", "pem"}}, []string{"unix:uid:70"}, "spec.files.layouts[1]"},
	} {
		e, err := identity.EntrySpec{Group: "hosts", SPIFFEID: "spiffe://test.example/db", Selectors: tc.selectors, Files: &tc.files}.Build("db", td)
		if tc.wrong == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if again, err := e.Plain().Entry(td); err != nil || !reflect.DeepEqual(again.Files, e.Files) {
				t.Errorf("%s: %v as an agent reads it, %v", name, again.Files, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.wrong+":") {
			t.Errorf("%s: %v, want an error at %s", name, err, tc.wrong)
		}
		// The agent asks again, but for a layout of a newer server.
		p := identity.Plain{Name: "db", SPIFFEID: "spiffe://test.example/db", Selectors: tc.selectors, Files: &identity.Files{Folder: tc.files.Folder, Layouts: tc.files.Layouts, Command: tc.files.Command}}
		if _, err := p.Entry(td); err == nil && tc.wrong != "spec.files.mode" && name != "an unknown layout" {
			t.Errorf("%s: the agent takes it", name)
		}
	}
}
