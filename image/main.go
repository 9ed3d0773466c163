package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// inputs are what images are made of.
type inputs struct {
	arch    string    // as Go calls it
	version string    // of Signet
	created time.Time // of the commit: there is no other time in an image
	signet  string    // the program, static
	parts   string    // the folder with Debian's packages and Envoy's, as they were fetched
	pins    []pin     // what of them is taken, and their hashes
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run() error {
	in := inputs{}
	created := flag.String("created", "", "seconds since 1970: when the commit was made")
	pins := flag.String("pins", "packages.txt", "which packages, and their SHA-256")
	out := flag.String("out", "", "the folder to write to")
	flag.StringVar(&in.arch, "arch", "amd64", "amd64 or arm64")
	flag.StringVar(&in.version, "version", "", "the version of Signet")
	flag.StringVar(&in.signet, "signet", "", "the program, static")
	flag.StringVar(&in.parts, "parts", "", "the folder with the packages")
	flag.Parse()
	var err error
	if in.pins, err = readPins(*pins, in.arch); err != nil {
		return err
	}
	if in.signet == "" || in.parts == "" || *out == "" || in.version == "" {
		return errors.New("--signet, --parts, --version and --out are needed; `make image` gives them")
	}
	seconds, err := strconv.ParseInt(*created, 10, 64)
	if err != nil {
		return fmt.Errorf("--created %q: seconds since 1970 are needed", *created)
	}
	in.created = time.Unix(seconds, 0).UTC()
	for _, kind := range []image{server, agent} {
		if err := kind.write(in, filepath.Join(*out, kind.file(in.arch))); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	return nil
}
