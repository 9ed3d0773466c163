package readonly

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	plain      = "text/plain; charset=utf-8"
	prometheus = "text/plain; version=0.0.4; charset=utf-8"

	// keep is for how long a page of statistics is given to all who ask, which is then what a caller
	// that comes without end costs Envoy's main thread. briefly is that of small answers.
	keep, briefly = time.Second, 100 * time.Millisecond
)

// answer is what one path answers.
type answer struct {
	status int
	kind   string // the content's type
	body   []byte
}

func (a answer) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // whoever has left does not wait for it
}

// kept is the newest answer of one path, with one caller at a time who asks for it.
type kept struct {
	age time.Duration
	get func() answer // ends in seconds

	mu   sync.Mutex // guards the following, and is held while one asks
	at   time.Time
	last answer
}

func (k *kept) current() answer {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at.IsZero() || time.Since(k.at) >= k.age {
		k.last = k.get()
		k.at = time.Now()
	}
	return k.last
}

// info is what of Envoy's /server_info is given: not its command line, folders and extensions.
type info struct {
	Version           string `json:"version"`
	State             string `json:"state"`
	UptimeEpoch       string `json:"uptime_current_epoch"`
	Uptime            string `json:"uptime_all_epochs"`
	HotRestartVersion string `json:"hot_restart_version"`
	Node              struct {
		ID      string `json:"id"`
		Cluster string `json:"cluster"`
	} `json:"node"`
}

// readInfo writes each field on a line of its own, as Envoy does: health checks search it by grep.
func readInfo(status int, body []byte) (answer, error) {
	var i info
	if err := json.Unmarshal(body, &i); err != nil || status != http.StatusOK {
		return answer{}, fmt.Errorf("%s: %d %w", infoPath, status, err)
	}
	text, err := json.MarshalIndent(i, "", " ")
	return answer{http.StatusOK, "application/json", append(text, '\n')}, err
}
