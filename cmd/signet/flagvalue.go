package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

// flagRefused is the error of a command line as its user understands it: that of a value names a
// function of Go.
func flagRefused(err error) error {
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		err = badValue("--"+bad.GetFlag().Name+" "+bad.GetValue(), bad.GetFlag())
	}
	return usage(err)
}

// badValue is what is wrong with what was written for a flag.
func badValue(written string, f *pflag.Flag) error {
	return fmt.Errorf("%s: want %s", written, wanted(f))
}

// wanted is what a flag takes.
func wanted(f *pflag.Flag) string {
	switch kind := f.Value.Type(); kind {
	case "bool":
		return "true or false"
	case "duration":
		return "a duration such as 30s, 10m or 1h"
	case "uint16":
		return "a whole number from 0 to 65535"
	case "uint", "uint32", "uint64":
		return "a whole number from 0 on"
	case "int", "int32", "int64":
		return "a whole number"
	case "uintSlice":
		return "whole numbers with commas between them, such as 1337 or 1337,1338"
	case "stringSlice":
		return "texts with commas between them; one that has a comma or a quote in it stands in double quotes"
	default:
		return kind
	}
}
