package ecs_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"signet.example/ecs"
)

// scribe writes values as some author might have: in some order, some of it on one line.
type scribe struct {
	*rand.Rand
	yaml bool
	b    strings.Builder
	said int // comments
}

func (s *scribe) flow(v any) {
	space := strings.Repeat(" ", s.IntN(2))
	switch v := v.(type) {
	case map[string]any:
		s.b.WriteString("{" + space)
		for i, name := range s.names(v) {
			if i > 0 {
				s.b.WriteString("," + space)
			}
			s.b.WriteString(quote(name) + ": ")
			s.flow(v[name])
		}
		s.b.WriteString(space + "}")
	case []any:
		s.b.WriteString("[" + space)
		for i, x := range v {
			if i > 0 {
				s.b.WriteString(space + "," + space)
			}
			s.flow(x)
		}
		s.b.WriteString("]")
	default:
		s.b.WriteString(quote(v))
	}
}

func quote(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (s *scribe) names(m map[string]any) []string {
	names := slices.Sorted(maps.Keys(m))
	s.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names
}

// comment is one on a line of its own, or nothing.
func (s *scribe) comment(indent string) {
	if s.IntN(5) == 0 {
		s.said++
		fmt.Fprintf(&s.b, "%s# a comment: of - some, \"kind %d.\n", indent, s.said)
	}
	if s.IntN(8) == 0 {
		s.b.WriteString("\n")
	}
}

// block writes what stands behind a name or a dash.
func (s *scribe) block(v any, indent string, dash bool) {
	m, isMap := v.(map[string]any)
	l, isList := v.([]any)
	if !isMap && !isList || len(m)+len(l) == 0 || s.IntN(6) == 0 {
		if !dash {
			s.b.WriteString(" ")
		}
		if text, ok := v.(string); ok && s.IntN(2) == 0 && strings.IndexFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && r != '-' }) < 0 {
			s.b.WriteString(text)
		} else if text, ok := v.(string); ok && s.IntN(3) == 0 {
			s.b.WriteString("'" + strings.ReplaceAll(text, "'", "''") + "'")
		} else {
			s.flow(v)
		}
		s.b.WriteString([]string{"\n", " # why\n"}[s.IntN(2)])
		return
	}
	if !dash {
		s.b.WriteString("\n")
	}
	for i, name := range s.names(m) {
		if i > 0 || !dash {
			s.comment(indent)
			s.b.WriteString(indent)
		}
		s.b.WriteString([]string{name, quote(name)}[s.IntN(2)] + ":")
		s.block(m[name], indent+"  ", false)
	}
	if isList && len(indent) >= 2 && !dash && s.IntN(2) == 0 {
		indent = indent[2:] // dashes below their name
	}
	for _, x := range l {
		s.comment(indent)
		s.b.WriteString(indent + "- ")
		s.block(x, indent+"  ", true)
	}
}

func (s *scribe) write(v any) string {
	switch style := s.IntN(4); {
	case s.yaml:
		s.b.WriteString("# written by hand\n---")
		s.block(v, "", false)
	case style == 0:
		b, _ := json.MarshalIndent(v, "", "\t")
		return string(b)
	default:
		s.flow(v)
	}
	return s.b.String()
}

// sorted is a definition without the order of its lists.
func sorted(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = sorted(v[name])
		}
	case []any:
		for i := range v {
			v[i] = sorted(v[i])
		}
		slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	case float64, bool:
		return fmt.Sprint(v)
	}
	return v
}

func TestWhateverTheOrderAndFormTheSameIsMade(t *testing.T) {
	o := options(t)
	for _, name := range []string{"orders.json", "front.json"} {
		source := strings.Replace(file(t, name), "12345678901234567890", "12345", 1) // which YAML's reader refuses
		r, err := ecs.Convert(name, source, o)
		if err != nil {
			t.Fatal(err)
		}
		want := sorted(definition(t, name, r.Definition))
		for seed := range uint64(100) {
			random := rand.New(rand.NewPCG(seed, 1))
			d := definition(t, name, source)
			containers := d["containerDefinitions"].([]any)
			random.Shuffle(len(containers), func(i, j int) { containers[i], containers[j] = containers[j], containers[i] })
			s := scribe{Rand: random, yaml: seed%2 == 0}
			as := "x.json"
			if s.yaml {
				as = "x.yaml"
			}
			text := s.write(d)
			if seed%7 == 0 {
				text = strings.ReplaceAll(text, "\n", "\r\n")
			}
			r, err := ecs.Convert(as, text, o)
			if err != nil {
				t.Fatalf("%s, seed %d: %v\n%s", name, seed, err, text)
			}
			if got := sorted(definition(t, as, r.Definition)); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s, seed %d: made of\n%s\n\n%s\n%v, want\n%v", name, seed, text, r.Definition, got, want)
			}
			for _, l := range r.Diff {
				if l.Reason == "" {
					t.Fatalf("%s, seed %d: no reason for %v", name, seed, l)
				}
			}
			for i := range s.said {
				if c := fmt.Sprintf("kind %d.", i+1); !strings.Contains(r.Definition, c) && !strings.Contains(fmt.Sprint(r.Diff), c) {
					t.Fatalf("%s, seed %d: a comment is lost and in no diff, %s:\n%s\n\n%s", name, seed, c, text, r.Definition)
				}
			}
		}
	}
}

// TestTextThatIsDamagedIsRefusedOrJoinedAsItWas: whatever is typed wrong, nothing is lost, and nothing is made that cannot be read.
func TestTextThatIsDamagedIsRefusedOrJoinedAsItWas(t *testing.T) {
	o, random := options(t), rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"orders.json", "edge.json", "stack.yaml", "synthesized.json"} {
		for range 100 {
			text := []byte(file(t, name))
			for range 1 + random.IntN(3) {
				i := random.IntN(len(text))
				j := min(len(text), i+random.IntN(200))
				switch random.IntN(3) {
				case 0:
					text[i] = "{}[]:,-#\"'!&*\n \t\\\r"[random.IntN(18)]
				case 1:
					text = slices.Delete(text, i, j)
				default:
					text = slices.Insert(text, i, slices.Clone(text[i:j])...)
				}
			}
			if got, ok := ecs.Rejoined("x", string(text)); ok && got != string(text) {
				t.Fatalf("joined as\n%s\nwas\n%s", got, text)
			}
			if _, err := ecs.Convert("x", string(text), o); err != nil && strings.Contains(err.Error(), "internal error") {
				t.Fatalf("%v\n%s", err, text)
			}
		}
	}
}
