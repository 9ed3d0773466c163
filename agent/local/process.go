package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// ProcessSocket is the file of a Unix socket in socket_dir, for root and the agent's own user:
// GET answers with the Process of a pid, since it says what others may hold.
const ProcessSocket = "local.sock"

// The query of a GET.
const (
	// PID is the process id, in the PID namespace that Namespace names.
	PID       = "pid"
	Namespace = "namespace"
	// Others asks for who else of the host has the selectors, which costs a look at each.
	Others = "others"
)

// mostAnswer is how many bytes an answer may have, and lookTime how long one may take.
const (
	mostAnswer = 4 << 20
	lookTime   = 15 * time.Second
)

// Process is what the agent sees of a process, and what it would give it if it came now.
type Process struct {
	PID  int    `json:"pid"`
	Mode string `json:"mode"` // as peers are held: pidfd, or task
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	// TrustDomain is empty where the agent has nothing from its server yet.
	TrustDomain string     `json:"trustDomain"`
	Selectors   []Selector `json:"selectors"`
	// Missing is why it has no selectors of some forms that a process can have.
	Missing []string `json:"missing"`
	// Fitting are the Entries and Bindings that fit it.
	Fitting []Holding `json:"fitting"`
	// Near are those that do not, the nearest first; Known is how many there are in all.
	Near  []Near `json:"near"`
	Known int    `json:"known"`
	// Nothing is why it is given nothing, "" where it is given something; ToDo what to do.
	Nothing string `json:"nothing"`
	ToDo    string `json:"toDo"`
	// Problems are Entries and Bindings that the agent cannot use, and why.
	Problems []string `json:"problems"`
	// Proposed are the selectors to ask for.
	Proposed Proposal `json:"proposed"`
	// Looked is how many other processes were looked at for Others.
	Looked int `json:"looked"`
}

// Selector is one that the process has.
type Selector struct {
	Selector string `json:"selector"`
	// Method is how it was found: the type of selectors that the method gives.
	Method string `json:"method"`
	// Lasts is stable, release (another one is deployed) or start (another one with each start).
	Lasts string `json:"lasts"`
	// With is who else has it by its nature, "" where it is one workload's own.
	With string `json:"with"`
	// Others is how many other processes of the host have it now, -1 where that was not counted.
	Others int `json:"others"`
}

// Object names an Entry or a Binding.
type Object struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	SPIFFEID string `json:"spiffeID"`
}

// Holding is one that fits the process.
type Holding struct {
	Object

	// Given reports whether its identity is given to the process.
	Given bool `json:"given"`
	// Until is when the SVID that the agent has for it ends; the zero time where it has none.
	Until time.Time `json:"until"`
	// Why is why it is not given, or why there is no SVID yet.
	Why string `json:"why"`
}

// Near is one that does not fit.
type Near struct {
	Object

	// Fit is how many of its selectors the process has.
	Fit     int       `json:"fit"`
	Differs []Differs `json:"differs"`
}

// Differs is a selector that is wanted and that the process does not have.
type Differs struct {
	Wants string `json:"wants"`
	// Has are those of the same form that it has.
	Has []string `json:"has"`
}

// Proposal is a set of selectors for an Entry or a Binding of the process.
type Proposal struct {
	Name      string   `json:"name"`
	Selectors []string `json:"selectors"`
	// Binding: it is a proxy.
	Binding bool `json:"binding"`
	// Notes are what to know before it is applied.
	Notes []string `json:"notes"`
	// Fits are other processes of the host that have all of them now, at most ten; FitsMore how many more do.
	Fits     []int `json:"fits"`
	FitsMore int   `json:"fitsMore"`
}

// ErrNotAllowed is returned where whoever asks is neither root nor the agent's own user.
var ErrNotAllowed = errors.New("the agent's socket is for root and the agent's own user, since it shows what others may hold")

// ErrRefused is returned where the agent cannot say what is asked of it.
var ErrRefused = errors.New("the agent answers")

// Look asks the agent whose sockets are in a folder about a process.
func Look(ctx context.Context, socketDir string, pid int, others bool) (*Process, error) {
	namespace, err := PIDNamespace()
	if err != nil {
		return nil, err
	}
	query := "?" + url.Values{PID: {strconv.Itoa(pid)}, Namespace: {namespace}, Others: {strconv.FormatBool(others)}}.Encode()
	client := clientOf(socketDir, ProcessSocket, lookTime)
	defer client.CloseIdleConnections()
	status, body, err := askFor(ctx, client, http.MethodGet, query, mostAnswer)
	switch {
	case errors.As(err, new(*impostorError)):
		return nil, err
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: %w", ErrNotAllowed, err)
	case err != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	case err != nil:
		return nil, err
	case status == http.StatusForbidden:
		return nil, ErrNotAllowed
	case status != http.StatusOK:
		return nil, fmt.Errorf("%w: %.2048s", ErrRefused, strings.TrimSpace(string(body)))
	}
	var p Process
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, fmt.Errorf("what the agent answers is not understood: %w", err)
	}
	return &p, nil
}

// PIDNamespace names that of this process: a process id means one process there.
func PIDNamespace() (string, error) { return os.Readlink("/proc/self/ns/pid") }

// askFor is ask with the bytes of the answer, at most most of them.
func askFor(ctx context.Context, client *http.Client, method, query string, most int64) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent/"+query, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if of, ok := errors.AsType[*url.Error](err); ok { // its URL is no place that anybody knows
		err = of.Err
	}
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	body, err = io.ReadAll(io.LimitReader(resp.Body, most))
	return resp.StatusCode, body, err
}
