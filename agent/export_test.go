package agent

import "signet.example/agent/authzproc"

// CPUOf returns the processor time that a process has used.
var CPUOf = authzproc.CPUOf

// PeerMode is how this kernel lets peers be attested.
var PeerMode = peerMode
