package placeholder_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh/placeholder"
)

var values = map[string]string{"MESH": "shop", "TARGETS": "{name: a}, {name: b}", "TWO": "a\nb", "PORT": "8080", "ARN": `arn:"x"`, "Values.port": "1", "service-ARN": "arn:a"}

func fill(t *testing.T, text string, form placeholder.Form) *placeholder.Filled {
	t.Helper()
	f, err := placeholder.Fill(text, form, values)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPlaceholdersOfEachFormHaveTheirValues(t *testing.T) {
	for _, c := range []struct {
		form placeholder.Form
		text string
		want string
	}{
		{placeholder.YAML, "name: ${MESH}\n", "name: shop\n"},
		{placeholder.YAML, "name: {{ .MESH }}\nother: {{MESH}}-{{- .Values.port -}}", "name: shop\nother: shop-1"},
		{placeholder.YAML, "port: {{ .Values.port | default 80 }} {{- if .MESH }}\n{{ include \"a\" . }}{{- end }}", "port: 1 {{- if .MESH }}\n{{ include \"a\" . }}{{- end }}"},
		{placeholder.YAML, "targets: [${TARGETS}]", "targets: [{name: a}, {name: b}]"},
		{placeholder.YAML, "cost: $mesh $$ ${1} ${} ${a-b} $(MESH) ^a$ $2", "cost: $mesh $$ ${1} ${} ${a-b} $(MESH) ^a$ $2"},
		{placeholder.YAML, "name: $MESH\nhost: a.$MESH.local\n", "name: shop\nhost: a.shop.local\n"},
		{placeholder.YAML, "arn: service-ARN\nb: my-service-ARN service-ARN-2 'service-ARN'", "arn: arn:a\nb: my-service-ARN service-ARN-2 'arn:a'"},
		{placeholder.JSON, `{"port": $PORT, "arn": $ARN, "text": "${ARN}", "name": ${MESH}}`, `{"port": 8080, "arn": "arn:\"x\"", "text": "arn:\"x\"", "name": "shop"}`},
		{placeholder.JSON, `{"a": "$PORT", "b": "\"", "c": $PORT}`, `{"a": "$PORT", "b": "\"", "c": 8080}`},
	} {
		if got := fill(t, c.text, c.form); got.Text != c.want || len(got.Unfilled) > 0 {
			t.Errorf("%q became %q, not %q: %v", c.text, got.Text, c.want, got.Unfilled)
		}
	}
}

func TestWhatHasNoValueIsOneWordThatIsTurnedBack(t *testing.T) {
	f := fill(t, "name: {{ .NONE }}\nhost: a.${OTHER}.${MESH}\n", placeholder.YAML)
	if strings.ContainsAny(f.Text, "{}$") {
		t.Errorf("%q is not fit to be parsed", f.Text)
	}
	line := strings.Split(f.Text, "\n")[1]
	written, names := f.Written(strings.TrimPrefix(line, "host: "))
	if written != "a.${OTHER}.shop" || !cmp.Equal(names, []string{"OTHER"}) {
		t.Errorf("%q, %v", written, names)
	}
	if d := cmp.Diff([]placeholder.Use{{Name: "NONE", Written: "{{ .NONE }}"}, {Name: "OTHER", Written: "${OTHER}"}}, f.Unfilled); d != "" {
		t.Error(d)
	}
	f = fill(t, `{"port": $NONE}`, placeholder.JSON)
	if !strings.HasPrefix(f.Text, `{"port": "`) || !strings.HasSuffix(f.Text, `"}`) {
		t.Errorf("%q", f.Text)
	}
}

func TestAPlaceInTheFilledTextLeadsToThatInTheFile(t *testing.T) {
	f := fill(t, "é: ${MESH}: x\na: ${TWO} y\nb: ${NONE} z\n", placeholder.YAML)
	for _, c := range []struct {
		text string // of the filled text
		line int
		col  int
	}{
		{"é", 1, 1},
		{"shop", 1, 4},
		{"hop", 1, 4},
		{": x", 1, 11},
		{"a: a", 2, 1},
		{"a\nb", 2, 4},
		{"b y", 2, 4},
		{" y", 2, 10},
		{"b: ", 3, 1},
		{" z", 3, 11},
	} {
		before, _, ok := strings.Cut(f.Text, c.text)
		if !ok {
			t.Fatal(c.text, f.Text)
		}
		line := 1 + strings.Count(before, "\n")
		col := 1 + utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:])
		if l, cl := f.Origin(line, col); l != c.line || cl != c.col {
			t.Errorf("%q at %d:%d comes from %d:%d, not %d:%d", c.text, line, col, l, cl, c.line, c.col)
		}
	}
	if l, c := f.Origin(4, 0); l != 3 || c != 0 {
		t.Errorf("the whole line 4 comes from %d:%d", l, c)
	}
}

// A file may be one line, and each of its fields has a place.
func TestPlacesOfAVeryLongLineAreFoundWithoutWalkingThroughIt(t *testing.T) {
	f := fill(t, strings.Repeat("é${MESH} ", 90_000), placeholder.YAML)
	if f.Unfilled != nil {
		t.Fatal(f.Unfilled)
	}
	began := time.Now()
	for i := range 50_000 {
		// what was é${MESH} has 9 characters, and 6 as éshop
		if line, col := f.Origin(1, 1+i*6); line != 1 || col != 1+i*9 {
			t.Fatalf("place %d is %d:%d", i, line, col)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Error(took)
	}
}

func TestWhatIsMadeIsBounded(t *testing.T) {
	huge := map[string]string{"X": strings.Repeat("x", 64<<10)}
	if err := placeholder.CheckValue(huge["X"] + "x"); err == nil {
		t.Error("a value of more than 64 KiB is taken")
	}
	for what, text := range map[string]string{
		"a large text":      strings.Repeat("${X}", 300),
		"many placeholders": strings.Repeat("${Y}", 100_001),
		"a text with marks": "\ue0000\ue001",
	} {
		if _, err := placeholder.Fill(text, placeholder.YAML, huge); err == nil {
			t.Errorf("%s is filled", what)
		}
	}
	for _, name := range []string{"", "a b", "${X}", "1", strings.Repeat("x", 200)} {
		if placeholder.CheckName(name) == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

// What is filled says where it came from, for every place, and what is not filled is
// turned back to what was written.
func FuzzFill(f *testing.F) {
	f.Add("a: ${MESH}\nb: {{ .NONE }}\n", false)
	f.Add(`{"a": $NONE, "b": "\"${TWO}"}`, true)
	f.Fuzz(func(t *testing.T, text string, asJSON bool) {
		form := placeholder.YAML
		if asJSON {
			form = placeholder.JSON
		}
		got, err := placeholder.Fill(text, form, values)
		if err != nil {
			return
		}
		lines := strings.Count(text, "\n") + 1
		for i, line := range strings.Split(got.Text, "\n") {
			for _, col := range []int{0, 1, utf8.RuneCountInString(line), 1 << 20} {
				if l, c := got.Origin(i+1, col); l < 1 || l > lines || c < 0 {
					t.Errorf("%d:%d comes from %d:%d of %d lines", i+1, col, l, c, lines)
				}
			}
		}
		empty, err := placeholder.Fill(text, placeholder.YAML, nil)
		if err != nil {
			t.Fatal(err)
		}
		if back, _ := empty.Written(empty.Text); back != strings.TrimPrefix(text, "\ufeff") {
			t.Errorf("%q was turned back to %q", text, back)
		}
	})
}
