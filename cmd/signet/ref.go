package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ref is an object on the command line: KIND NAME, or in one word as -o name
// prints it: kind/name or kind/mesh/name.
type ref struct{ kind, mesh, name string }

// refsOf understands the arguments of get and delete: a KIND and names of it, or
// words with a slash. mesh is that of --mesh, for those that name none.
func refsOf(args []string, mesh string) ([]ref, error) {
	if len(args) == 0 {
		return nil, nil
	}
	if !strings.Contains(args[0], "/") {
		if len(args) == 1 {
			return []ref{{kind: args[0], mesh: mesh}}, nil
		}
		var list []ref
		for _, name := range args[1:] {
			r := ref{kind: args[0], mesh: mesh, name: name}
			// The output of -o name, after the KIND that it begins with.
			if word, err := parseRef(name, mesh); err == nil && strings.EqualFold(word.kind, args[0]) {
				r = word
			}
			list = append(list, r)
		}
		return list, nil
	}
	var list []ref
	for _, word := range args {
		r, err := parseRef(word, mesh)
		if err != nil {
			return nil, usage(err)
		}
		list = append(list, r)
	}
	return list, nil
}

func parseRef(word, mesh string) (ref, error) {
	parts := strings.Split(word, "/")
	if slices.Contains(parts, "") {
		parts = nil
	}
	switch len(parts) {
	case 2:
		return ref{kind: parts[0], mesh: mesh, name: parts[1]}, nil
	case 3:
		if mesh != "" && mesh != parts[1] {
			return ref{}, fmt.Errorf("%q is of another mesh than --mesh %s", printable(word), printable(mesh))
		}
		return ref{kind: parts[0], mesh: parts[1], name: parts[2]}, nil
	}
	return ref{}, fmt.Errorf("%q is not an object: kind/name or kind/mesh/name, as -o name prints it", printable(word))
}

// refArgs needs a KIND and at least so many names, or one word with a slash.
func refArgs(args []string, names int) error {
	switch {
	case len(args) == 0:
		return errors.New("needs a KIND (or all, or agents), or KIND/NAME")
	case !strings.Contains(args[0], "/") && len(args) < 1+names:
		return errors.New("needs a NAME")
	}
	return nil
}
