package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"os"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// bill lists what is in an image: Signet's modules, as its program has them written in it, and the packages of
// others that something was taken of.
func (i image) bill(in inputs) ([]byte, error) {
	f, err := os.Open(in.signet)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := buildinfo.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.signet, err)
	}
	components := []cdx.Component{{
		BOMRef: "pkg:golang/std@" + info.GoVersion, Type: cdx.ComponentTypeLibrary, Name: "std", Version: info.GoVersion, PackageURL: "pkg:golang/std@" + info.GoVersion,
	}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		url := "pkg:golang/" + m.Path + "@" + m.Version
		components = append(components, cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url})
	}
	for _, p := range in.pins {
		if !i.envoy && p.name != "ca-certificates" {
			continue
		}
		components = append(components, cdx.Component{
			BOMRef: p.purl(), Type: cdx.ComponentTypeApplication, Name: p.name, Version: p.version, PackageURL: p.purl(),
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: p.sum}},
		})
	}
	b := cdx.NewBOM()
	b.Metadata = &cdx.Metadata{
		Timestamp: in.created.Format(time.RFC3339),
		Component: &cdx.Component{BOMRef: i.name, Type: cdx.ComponentTypeContainer, Name: i.name, Version: in.version},
	}
	b.Components = &components
	var out bytes.Buffer
	e := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON)
	e.SetPretty(true)
	err = e.Encode(b)
	return out.Bytes(), err
}
