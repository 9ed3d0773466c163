package manifest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/manifest"
)

// other is a spec as another form has it.
type other struct {
	Count int64    `yaml:"count" json:"count" check:"required min=1"`
	Name  string   `yaml:"name,omitempty" json:"name,omitempty" check:"len=1..5"`
	On    *bool    `yaml:"on,omitempty" json:"on,omitempty"`
	List  []string `yaml:"list,omitempty" json:"list,omitempty"`
}

func nodes(t *testing.T, f manifest.Form, text string) []manifest.Node {
	t.Helper()
	list, errs := f.Read("f", []byte(text))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return list
}

// decode makes a manifest of a mapping whose members have other names, and decodes it.
func decode(t *testing.T, n manifest.Node, loose bool, members ...manifest.Member) (other, []string) {
	t.Helper()
	d, err := manifest.Made{
		APIVersion: "g/v1", Kind: "K", Loose: loose, Rest: strings.ToUpper,
		Name: manifest.Member{Written: "/Head.Name", Value: n.Get("N")},
		Spec: manifest.Member{Written: "/Body", Value: n.Mapping(members...)},
	}.Document()
	if err != nil {
		t.Fatal(err)
	}
	var o other
	var told []string
	for _, e := range manifest.AsErrors(d.Decode(&o)) {
		text := e.Error()
		if e.Unknowable {
			text += " (unknowable)"
		}
		told = append(told, text)
	}
	return o, told
}

func TestMistakesOfAMadeManifestAreToldInTheWordsAndByThePlacesOfItsText(t *testing.T) {
	n := nodes(t, manifest.Form{}, "N: a/b\nAmount: many\nTitle: much too long\nWords: [a, 7]\n")[0]
	_, told := decode(t, n, false,
		manifest.Member{Name: "name", Written: "Title", Value: n.Get("Title")},
		manifest.Member{Name: "list", Written: "Words", Value: n.Get("Words")},
		manifest.Member{Name: "count", Written: "-", Value: n.Get("Amount")},
	)
	want := []string{
		`f:1:4: Head.Name: "a/b" must be letters, digits, dot, underscore and hyphen, and not only a dot or two`,
		"f:2:9: Body: must be a whole number, is a string: write it without quotes",
		"f:3:8: Body.Title: has 13 characters; must have 1 to 5",
		"f:4:12: Body.Words[1]: must be a string, is a whole number: quote it",
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Error(d)
	}
	if _, told = decode(t, nodes(t, manifest.Form{}, "N: a\n")[0], false); len(told) != 1 || told[0] != "f:1:1: Body.COUNT: is required" {
		t.Error(told)
	}
}

func TestWhatCannotBeKnownIsATextOrAMistakeOfItsOwnKind(t *testing.T) {
	n := nodes(t, manifest.Form{}, "N: a\nX: 1\n")[0]
	opaque := n.Get("X").Opaque("?", "nobody knows")
	o, told := decode(t, n, false, manifest.Member{Name: "count", Value: opaque}, manifest.Member{Name: "name", Value: opaque}, manifest.Member{Name: "list", Value: opaque})
	want := []string{"f:2:4: Body.count: cannot be known: nobody knows (unknowable)", "f:2:4: Body.list: cannot be known: nobody knows (unknowable)"}
	if d := cmp.Diff(want, told); d != "" || o.Name != "?" {
		t.Errorf("%q %s", o.Name, d)
	}
	long := n.Get("X").Opaque("??????", "nobody knows")
	if _, told = decode(t, n, false, manifest.Member{Name: "count", Value: n.Get("X")}, manifest.Member{Name: "name", Value: long}); len(told) != 1 || !strings.HasSuffix(told[0], "(unknowable)") {
		t.Error(told)
	}
}

func TestScalarsAreTakenForEachOtherOnlyWhereTheFormDoes(t *testing.T) {
	n := nodes(t, manifest.Form{}, "N: a\nC: '7'\nT: 12\nB: 'True'\n")[0]
	members := []manifest.Member{{Name: "count", Value: n.Get("C")}, {Name: "name", Value: n.Get("T")}, {Name: "on", Value: n.Get("B")}}
	o, told := decode(t, n, true, members...)
	if o.Count != 7 || o.Name != "12" || o.On == nil || !*o.On || told != nil {
		t.Errorf("%+v %v", o, told)
	}
	if _, told = decode(t, n, false, members...); len(told) != 3 {
		t.Error(told)
	}
}

func TestTagsAreReadAsTheMappingsThatTheyMean(t *testing.T) {
	f := manifest.Form{Tags: map[string]string{"!Ref": "Ref", "!If": "Fn::If"}}
	n := nodes(t, f, "a: !If [b, !Ref c, d]\n")[0].Get("a")
	if got := n.Get("Fn::If").Items()[1].Get("Ref").Text(); got != "c" {
		t.Errorf("%q", got)
	}
	if _, errs := f.Read("f", []byte("a: !Other b\n")); len(errs) != 1 || errs[0].Field != "a" {
		t.Error(errs)
	}
}

func TestJSONValuesOneAfterTheOtherKeepTheirPlaces(t *testing.T) {
	list := nodes(t, manifest.Form{}, "{\"a\": \"}{\"}\n  {\"b\": 1} {\"c\":\n \"\\\"\"}\n")
	if len(list) != 3 {
		t.Fatal(len(list))
	}
	for i, want := range [][2]int{{1, 7}, {2, 9}, {3, 2}} {
		if _, line, column := list[i].Members()[0].Value.Place(); line != want[0] || column != want[1] {
			t.Errorf("%d: %d:%d", i, line, column)
		}
	}
	item := "{\"a\": \"" + strings.Repeat("x", 200) + "\"}"
	long := nodes(t, manifest.Form{}, "[\n"+strings.Repeat(item+",\n", 8000)+item+"\n]\n")
	if len(long) != 8001 {
		t.Fatal(len(long))
	}
	if _, line, column := long[7000].Get("a").Place(); line != 7002 || column != 7 {
		t.Errorf("%d:%d", line, column)
	}
	if _, errs := (manifest.Form{}).Read("f", []byte(strings.Repeat(item, 10_002))); len(errs) != 1 || !strings.Contains(errs[0].Msg, "too much") {
		t.Error(errs)
	}
	if _, errs := (manifest.Form{}).Read("f", []byte("{} x {}")); len(errs) == 0 {
		t.Error("what is between two values is ignored")
	}
}
