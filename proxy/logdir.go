package proxy

import (
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// LogDirKey is where the metadata of an agent's own stream names its folder for
// access logs, before any proxy of its host has connected.
const LogDirKey = "signet.access_log_dir"

// maxLogPath is what the model of App Mesh lets a path have.
const maxLogPath = 255

// StandardLog reports whether an access log goes to the proxy's own output.
func StandardLog(file string) bool { return file == "/dev/stdout" || file == "/dev/stderr" }

// LogWithin reports whether file is in dir or a folder below it. A mesh says what
// is logged; where on a host it is written is its operator's to say.
func LogWithin(dir, file string) bool {
	return ValidLogDir(dir) && len(file) <= maxLogPath && path.Clean(file) == file && strings.HasPrefix(file, dir+"/") && !control(file)
}

// ValidLogDir reports whether dir may be named as the folder for access logs:
// absolute, clean, and not where the kernel has its files.
func ValidLogDir(dir string) bool {
	if !path.IsAbs(dir) || path.Clean(dir) != dir || dir == "/" || len(dir) > maxLogPath || control(dir) {
		return false
	}
	top, _, _ := strings.Cut(dir[1:], "/")
	return !slices.Contains([]string{"dev", "proc", "sys"}, top)
}

func control(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// LogDirOfAgent is the folder that the metadata of an agent's own stream names; ""
// for none.
func LogDirOfAgent(metadata *structpb.Struct) string {
	dir := metadata.GetFields()[LogDirKey].GetStringValue()
	if !ValidLogDir(dir) {
		return ""
	}
	return dir
}
