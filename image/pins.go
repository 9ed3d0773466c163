package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// pin is one file of others, of which an image takes something.
type pin struct {
	arch     string // or "all"
	registry string // "debian" or "pypi"
	name     string
	version  string
	sum      string // SHA-256, hexadecimal
}

// readPins reads those of an architecture.
func readPins(file, arch string) ([]pin, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var pins []pin
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) != 5 {
			return nil, fmt.Errorf("%s:%d: five words are needed: architecture, registry, package, version, SHA-256", file, n)
		}
		if words[0] == arch || words[0] == "all" {
			pins = append(pins, pin{words[0], words[1], words[2], words[3], words[4]})
		}
	}
	if !slices.ContainsFunc(pins, func(p pin) bool { return p.arch == arch }) {
		return nil, fmt.Errorf("%s has nothing for %s", file, arch)
	}
	return pins, lines.Err()
}

// purl is the package's name in a bill of materials.
func (p pin) purl() string {
	if p.registry == "debian" {
		return fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=bookworm", p.name, p.version, p.arch)
	}
	return fmt.Sprintf("pkg:pypi/%s@%s", p.name, p.version)
}

// find returns the file of one package, which is the pinned one to the last bit.
func (in inputs) find(name string) (file string, err error) {
	at := slices.IndexFunc(in.pins, func(p pin) bool { return p.name == name })
	if at < 0 {
		return "", fmt.Errorf("packages.txt does not pin %s for %s", name, in.arch)
	}
	p := in.pins[at]
	pattern := fmt.Sprintf("%s_%s_%s.deb", p.name, strings.ReplaceAll(p.version, ":", "%3a"), p.arch)
	if p.registry == "pypi" {
		pattern = fmt.Sprintf("%s-%s-*.whl", strings.ReplaceAll(p.name, "-", "_"), p.version)
	}
	found, err := filepath.Glob(filepath.Join(in.parts, pattern))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s has %d files %s, one is needed: make image fetches it", in.parts, len(found), pattern)
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		return "", err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != p.sum {
		return "", fmt.Errorf("%s has SHA-256 %x, and packages.txt pins %s", found[0], sum, p.sum)
	}
	return found[0], nil
}
