package child

import "errors"

// ErrExited is why a child ended that exited as if it had done its work: Process.Err
// is nil then.
var ErrExited = errors.New("exited")
