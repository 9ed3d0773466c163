package main

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// machines are the architectures as ELF calls them.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// static returns an error unless this is a program of the architecture that needs no library.
func static(program []byte, arch string) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("not a Linux program: %w", err)
	}
	defer func() { _ = f.Close() }() // in memory
	if f.Machine != machines[arch] {
		return fmt.Errorf("it is for %s, and the image for %s", f.Machine, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("it is linked dynamically: build it with CGO_ENABLED=0")
		}
	}
	return nil
}
