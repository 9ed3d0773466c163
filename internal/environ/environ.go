// Package environ reads a program's settings from its environment, by the keys of its file:
// a key that is added to the file has its variable.
//
// Main types in order: a [Part] is a struct of the file, [Variables] are those of all parts,
// and [Said] is what an environment says, as a file.
//
// # Concurrency
//
// Everything is a value.
package environ

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"signet.example/internal/manifest"
)

// Variable is a variable of the environment for one key of a file.
type Variable struct {
	Name string // SIGNET_DRAIN_TIME
	Key  string // drain_time

	want string // what the value is to be; "" for a text in YAML
}

// Part is a struct of the file, whose fields have the tag yaml.
type Part struct {
	Type reflect.Type
	// At is where it is in the file: "" for the whole, or a key with [0], of a list of which
	// the environment has one.
	At string
	// Prefix begins the names of its variables: SIGNET_PROXY_.
	Prefix string
}

// Variables are those of all keys that have one value: the prefix and the key in capitals, with _ for a
// point. A name that two keys would have is the first one's.
func Variables(parts ...Part) []Variable {
	by := map[string]Variable{}
	for _, p := range parts {
		for _, v := range variablesOf(p.Type, "") {
			v.Name = p.Prefix + strings.ToUpper(strings.ReplaceAll(v.Key, ".", "_"))
			if p.At != "" {
				v.Key = p.At + "." + v.Key
			}
			if _, taken := by[v.Name]; !taken {
				by[v.Name] = v
			}
		}
	}
	return slices.SortedFunc(maps.Values(by), func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
}

func variablesOf(t reflect.Type, prefix string) []Variable {
	var all []Variable
	for f := range t.Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "" || key == "-" {
			continue
		}
		key = prefix + key
		of := f.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		switch of.Kind() {
		case reflect.Struct:
			all = append(all, variablesOf(of, key+".")...)
		case reflect.Slice, reflect.Map, reflect.Func: // more than one value
		default:
			all = append(all, Variable{Key: key, want: wanted(of)})
		}
	}
	return all
}

// wanted is what a value of that type is to be, "" for a text.
func wanted(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.String, t == reflect.TypeFor[time.Duration]():
		return ""
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "a number"
}

// fits reports whether a text is what is wanted. How large a number may be is the file's to say.
func fits(want, text string) bool {
	if want == "true or false" {
		return text == "true" || text == "false"
	}
	return json.Valid([]byte(text)) && (text[0] == '-' || text[0] >= '0' && text[0] <= '9')
}

// noSuch is the mistake of a name that no variable has, with the one that was probably meant.
func noSuch(name string, known []Variable) string {
	var names []string
	for _, v := range known {
		names = append(names, v.Name)
	}
	said := name + ": no such variable"
	if meant := manifest.Nearest(name, names); meant != "" {
		said += "; did you mean " + meant + "?"
	}
	return said
}

// Said is what an environment says.
type Said struct {
	// File is that as a file; nil where it says nothing.
	File []byte
	// Names are the variables that say it, by key, as whoever set them wrote them.
	Names map[string]string
}

// Read reads an environment. A variable that begins as ours do and is not known, nor one of besides, is
// refused, as a key is in a file. Written are the names of those that stand for others: what is wrong is
// said of these.
func Read(environ []string, begin string, known []Variable, written map[string]string, besides ...string) (Said, error) {
	by := map[string]Variable{}
	for _, v := range known {
		by[v.Name] = v
	}
	tree, said := map[string]any{}, Said{Names: map[string]string{}}
	var wrong []string
	for _, one := range environ {
		name, value, _ := strings.Cut(one, "=")
		v, ok := by[name]
		switch {
		case !strings.HasPrefix(name, begin) || value == "" || slices.Contains(besides, name):
		case !ok:
			wrong = append(wrong, noSuch(name, known))
		case v.want != "" && !fits(v.want, value):
			wrong = append(wrong, fmt.Sprintf("%s: want %s, got %q", cmp.Or(written[name], name), v.want, manifest.Clip(value)))
		default:
			said.Names[v.Key] = cmp.Or(written[name], name)
			if v.want == "" {
				put(tree, v.Key, value)
			} else {
				put(tree, v.Key, json.RawMessage(value))
			}
		}
	}
	if wrong != nil {
		slices.Sort(wrong)
		return Said{}, errors.New(strings.Join(wrong, ", "))
	}
	if len(tree) == 0 {
		return said, nil
	}
	for key, value := range tree {
		if list, ok := strings.CutSuffix(key, "[0]"); ok {
			delete(tree, key)
			tree[list] = []any{value}
		}
	}
	var err error
	if said.File, err = json.Marshal(tree); err != nil { // JSON is YAML
		return Said{}, fmt.Errorf("internal error: the environment as a file: %w", err)
	}
	return said, nil
}

func put(tree map[string]any, key string, value any) {
	for {
		first, rest, deeper := strings.Cut(key, ".")
		if !deeper {
			tree[key] = value
			return
		}
		below, ok := tree[first].(map[string]any)
		if !ok {
			below = map[string]any{}
			tree[first] = below
		}
		tree, key = below, rest
	}
}
