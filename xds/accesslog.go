package xds

import (
	"path"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// logDirKey is where the metadata of an agent's own stream names its folder for
// access logs: before any proxy of its has connected.
const logDirKey = "signet.access_log_dir"

// maxLogPath is what the model lets a path have.
const maxLogPath = 255

// StandardLog reports whether an access log goes to the proxy's own output.
func StandardLog(file string) bool { return file == "/dev/stdout" || file == "/dev/stderr" }

// LogWithin reports whether file is in dir or a folder below it. A mesh says what
// is logged; where a host is written to is its operator's to say.
func LogWithin(dir, file string) bool {
	return ValidLogDir(dir) && len(file) <= maxLogPath && path.Clean(file) == file && strings.HasPrefix(file, dir+"/") && !control(file)
}

// ValidLogDir reports whether dir may be named as the folder for access logs.
func ValidLogDir(dir string) bool {
	if !path.IsAbs(dir) || path.Clean(dir) != dir || dir == "/" || len(dir) > maxLogPath || control(dir) {
		return false
	}
	top, _, _ := strings.Cut(dir[1:], "/")
	return !slices.Contains([]string{"dev", "proc", "sys"}, top)
}

// LogDirOfAgent is the folder that an agent's own stream names; "" for none.
func LogDirOfAgent(n *corev3.Node) string {
	dir := n.GetMetadata().GetFields()[logDirKey].GetStringValue()
	if !ValidLogDir(dir) {
		return ""
	}
	return dir
}

// Logs reports whether a proxy of this shape writes an access log to file.
func (s Shape) Logs(file string) bool { return StandardLog(file) || LogWithin(s.AccessLogDir, file) }

func control(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}
