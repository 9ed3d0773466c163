package dev

import (
	"os/exec"
	"runtime"
	"sync"
)

// starts is served by one thread that never ends: PDEATHSIG fires when the
// thread that forked ends (prctl(2)), and Go ends idle threads at will.
var starts = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startLocked(cmd *exec.Cmd) error {
	result := make(chan error)
	starts() <- func() { result <- cmd.Start() }
	return <-result
}
