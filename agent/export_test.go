package agent

import "signet.example/agent/authzproc"

// CPUOf returns the processor time that a process has used.
var CPUOf = authzproc.CPUOf

// OnAHost says whether the agents that are run from now on are in a host's network namespace.
func OnAHost(is bool) (restore func()) {
	before := inHostNamespace
	inHostNamespace = func() bool { return is }
	return func() { inHostNamespace = before }
}
