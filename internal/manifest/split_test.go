package manifest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/manifest"
	"signet.example/test/parts"
)

// object is the head of an object, to which a test adds its spec.
func object(kind, name string) string {
	return "apiVersion: appmesh.k8s.aws/v1beta2\nkind: " + kind + "\nmetadata: {name: " + name + "}\n"
}

func TestSplitNumbersLinesThroughTheStream(t *testing.T) {
	content := "\ufeff# head\r\n---\r\n" + strings.ReplaceAll(object("Mesh", "a"), "\n", "\r\n") + "---\r\n---\r\n" + object("VirtualNode", "b") + "...\n---\n# tail\n"
	docs, err := format.Split("s.yaml", []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range docs {
		got = append(got, fmt.Sprintf("%s:%d %s %s %s", d.File, d.Line, d.APIVersion, d.Kind, d.Name))
	}
	want := []string{"s.yaml:3 appmesh.k8s.aws/v1beta2 Mesh a", "s.yaml:8 appmesh.k8s.aws/v1beta2 VirtualNode b"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestOneBrokenDocumentDoesNotHideTheOthers(t *testing.T) {
	docs, err := format.Split("s.yaml", []byte("a: [\n---\n"+object("Mesh", "m")+"---\nb: ]\n"))
	if len(docs) != 1 || docs[0].Name != "m" {
		t.Errorf("got %d documents", len(docs))
	}
	if errs := manifest.AsErrors(err); len(errs) != 2 || errs[0].Line != 1 || errs[1].Line != 7 {
		t.Errorf("got %v", err)
	}
}

func TestAHopelessFileIsNotReadToItsEnd(t *testing.T) {
	_, err := format.Split("s.yaml", []byte(strings.Repeat("--- {}\n", 300_000)))
	errs := manifest.AsErrors(err)
	if len(errs) != 1001 || !strings.Contains(errs[1000].Error(), "not read further") {
		t.Errorf("%d mistakes are told, the last: %v", len(errs), errs[len(errs)-1])
	}
}

func TestMarkerInsideABlockScalarEndsTheDocument(t *testing.T) {
	docs, err := format.Split("s.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: |\n    ---\n    b\n---\n"+object("Mesh", "m")))
	if err != nil || len(docs) != 2 || docs[1].Name != "m" {
		t.Errorf("got %d documents, %v", len(docs), err)
	}
}

// What others may write in their own kinds is not ours to refuse.
func TestForeignDocumentIsReadOnlyByName(t *testing.T) {
	for _, spec := range []string{"{defaultMode: 0644}", "{<<: {a: 1}}", "{a: !!binary aGk=}", "{1: 2}", "{a: 1, a: 2}", "*none"} {
		docs, err := format.Split("f.yaml", []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: n}\nspec: "+spec))
		if err != nil || len(docs) != 1 {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		if d := docs[0]; !d.Foreign() || d.Kind != "Deployment" || d.Name != "d" || d.Namespace != "n" {
			t.Errorf("%s: got %+v", spec, d)
		}
	}
}

func TestListBecomesItsItems(t *testing.T) {
	docs, err := format.Split("l.json", []byte(`{"apiVersion": "v1", "kind": "List", "items": [
	{"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": {"name": "m", "uid": "1"}, "status": {}},
	{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}]}`))
	if err != nil || len(docs) != 2 || docs[0].Foreign() || !docs[1].Foreign() || docs[0].Line != 2 {
		t.Errorf("got %d documents, %v", len(docs), err)
	}
}

func TestHostileDocumentsAreRefusedSoon(t *testing.T) {
	const n = 35_000
	for what, content := range map[string]string{
		"open brackets":  strings.Repeat("[", n),
		"brackets":       strings.Repeat("[", n) + strings.Repeat("]", n),
		"braces":         strings.Repeat("{a: ", n),
		"hyphens":        strings.Repeat("- ", n),
		"question marks": strings.Repeat("? ", n),
		"anchors":        strings.Repeat("&a ", n),
		"tags":           strings.Repeat("!a ", n),
		"keys":           manyKeys(60_000),
		"steps":          steps(1000),
		"bytes":          "a: " + strings.Repeat("x", 1<<20),
		"blank lines":    object("Mesh", "m") + "spec:\n  a: |\n" + strings.Repeat("\n", 1_000_000),
		"blanks":         object("Mesh", "m") + "spec:\n" + strings.Repeat("  a: |\n"+strings.Repeat("   x\n", 50)+strings.Repeat("  \n", 100), 1900),
		"paths":          object("Mesh", "m") + "spec:\n" + longPath(50, 8000),
		"NUL":            "a: \x00",
		"not UTF-8":      "a: \xff",
	} {
		begin := time.Now()
		_, err := format.Split("h.yaml", []byte(content))
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s: took %v", what, took)
		}
		for _, e := range manifest.AsErrors(err) {
			if len(e.Error()) > 500 || len(e.Excerpt) > 2000 {
				t.Errorf("%s: the error has %d characters", what, len(e.Error())+len(e.Excerpt))
			}
		}
	}
}

// longPath are keys below others of 500 bytes.
func longPath(depth, keys int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", 2+i) + strings.Repeat("k", 500) + ":\n")
	}
	for i := range keys {
		fmt.Fprintf(&b, "%sk%d: v\n", strings.Repeat(" ", 2+depth), i)
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: v\n", i)
	}
	return b.String()
}

func steps(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// What a document costs beside its bytes is paid at most so often.
func TestAFileOfTooManyDocumentsIsNotReadToItsEnd(t *testing.T) {
	named := func(i int) string { return fmt.Sprintf("--- {apiVersion: a, kind: b, n: %d}\n", i) }
	var few strings.Builder
	for i := range 1000 {
		few.WriteString(named(i) + "---\n# of a template that gave nothing\n\n")
	}
	if docs, err := format.Split("f.yaml", []byte(few.String())); len(docs) != 1000 || err != nil {
		t.Errorf("%d documents with empty ones between: %v", len(docs), err)
	}
	for what, c := range map[string]struct{ content, want string }{
		"markers":       {strings.Repeat("---\n", 375_000), "f.yaml:10002: the file has more than 10000 empty documents; it is not read further"},
		"small":         {strings.Repeat("--- {apiVersion: a, kind: b}\n", 100_001), "f.yaml:100001: the file has more than 100000 documents; it is not read further: apply it in parts"},
		"large":         {strings.Repeat("---\n"+object("Mesh", "m")+"spec:\n  l: ["+strings.Repeat("x, ", 14_000)+"]\n", 20), "f.yaml:73: the file has too many large documents; it is not read further: apply it in parts"},
		"null":          {strings.Repeat("--- ~\n", 150_000), "f.yaml:10002: the file has more than 10000 empty documents; it is not read further"},
		"comments":      {strings.Repeat("--- # x\n# y\n", 75_000), "f.yaml:20003: the file has more than 10000 empty documents; it is not read further"},
		"in a settings": {strings.Repeat("---\n", 375_000), "f.yaml:10001: the file has more than 10000 documents: one is read"},
	} {
		if what == "small" && !parts.Soak() { // some seconds
			continue
		}
		begin := time.Now()
		_, err := format.Split("f.yaml", []byte(c.content))
		if what == "in a settings" {
			err = manifest.DecodeSettings("f.yaml", []byte(c.content), &struct{ A string }{})
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s: took %v", what, took)
		}
	}
}

// A place is a path of keys: a long one would be repeated for each below it.
func TestAKeyIsBoundedSinceEachPathRepeatsIt(t *testing.T) {
	var b strings.Builder
	b.WriteString(object("Mesh", "m") + "spec:\n  " + strings.Repeat("k", 5000) + ":\n")
	for i := range 100 {
		fmt.Fprintf(&b, "    k%d: v\n", i)
	}
	docs, err := format.Split("k.yaml", []byte(b.String()))
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	err = docs[0].Decode(&struct{}{})
	if want := "k.yaml:5:3: spec: has a key of 5000 bytes; at most 512 are read"; err == nil || err.Error() != want {
		t.Errorf("%.300v", err)
	}
	longest := strings.Repeat("k", 512)
	if docs, err = format.Split("k.yaml", []byte(object("Mesh", "m")+"spec: {"+longest+": {}}")); err != nil || len(docs) != 1 || !docs[0].Has("spec."+longest) {
		t.Errorf("a key of 512: %v", err)
	}
}
