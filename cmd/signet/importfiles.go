package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
)

// What import reads at most.
const (
	maxImportFiles = 10_000
	maxImport      = 256 << 20 // bytes of all files
)

// importable are how the files of a folder end that are read.
var importable = []string{".yaml", ".yml", ".json", ".template", ".tpl", ".tfstate"}

// importFiles reads what the arguments name; what of a folder is not read is named.
func importFiles(c *cobra.Command, args []string, recursive bool) (files []dialect.File, skipped []importer.File, err error) {
	total := 0
	take := func(name string, content []byte) error {
		files = append(files, dialect.File{Name: name, Content: content})
		if total += len(content); total > maxImport || len(files) > maxImportFiles {
			return fmt.Errorf("more than %d files or %d MiB: import them in parts", maxImportFiles, maxImport>>20)
		}
		return nil
	}
	skip := func(path, why string) { skipped = append(skipped, importer.File{Name: path, Why: why}) }
	for _, arg := range args {
		if arg == "-" {
			content, err := readInput(c)
			if err != nil {
				return nil, nil, err
			}
			if err := take("-", content); err != nil {
				return nil, nil, err
			}
			continue
		}
		info, err := os.Stat(arg)
		if err != nil {
			return nil, nil, err
		}
		if !info.IsDir() {
			content, err := readBounded(c.Context(), arg)
			if err == nil {
				err = take(arg, content)
			}
			if err != nil {
				return nil, nil, err
			}
			continue
		}
		err = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case path == arg:
				return nil
			case strings.HasPrefix(d.Name(), "."):
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			case d.IsDir() && !recursive:
				skip(path, "a folder: -R reads the folders in a folder")
				return filepath.SkipDir
			case d.IsDir():
				return nil
			case !slices.Contains(importable, strings.ToLower(filepath.Ext(path))):
				skip(path, notImportable(path))
				return nil
			}
			if !regular(path) {
				skip(path, "not a regular file")
				return nil
			}
			content, err := readBounded(c.Context(), path)
			if err != nil {
				return err
			}
			return take(path, content)
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return files, skipped, nil
}

// notImportable is why a file of a folder is not read.
func notImportable(path string) string {
	if strings.EqualFold(filepath.Ext(path), ".tf") {
		return "Terraform's configuration is not read: give its state, as `terraform show -json` writes it"
	}
	return "not one of " + strings.Join(importable, ", ")
}
