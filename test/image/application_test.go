package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"signet.example/test/meshtest"
)

// applicationEnv has the task and the container whose application this program is, outlivesEnv for how long it goes on
// when it was told to stop.
const applicationEnv, outlivesEnv = "SIGNET_TEST_APPLICATION", "SIGNET_TEST_OUTLIVES"

// nowhere is an address that nobody has: names of services lead there, and what is redirected does not get so far.
const nowhere = "203.0.113.7"

// answered is what an application saw of a call, and what was seen of its own.
type answered struct {
	Service string // of the task
	Caller  string // of who called it
	Beyond  string // whom the service that it called took it for
}

// application is what runs in a container in the place of a user's image: the application, or what listens where the
// X-Ray daemon would.
func application(of string) int {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	task, container, _ := strings.Cut(of, " ")
	if strings.HasPrefix(container, "xray") {
		l, err := net.ListenPacket("udp", "127.0.0.1:2000")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		<-ended
		_ = l.Close() // nobody sent anything
		return 0
	}
	at := map[bool]string{true: "127.0.0.1:8080", false: "0.0.0.0:8080"} // the proxy has the task's own where nothing is redirected
	l, err := net.Listen("tcp", at[os.Getenv("http_proxy") != ""])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /up", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("GET /through", through(task))
	mux.Handle("/page", page(task, func(id string) { fmt.Println(posted + id) }))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // ends by Shutdown
	<-ended
	if d, err := time.ParseDuration(os.Getenv(outlivesEnv)); err == nil {
		time.Sleep(d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// posted begins a line of each POST that an application got.
const posted = "posted "

// page answers, and notes what is posted to it.
func page(of string, note func(id string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		id, err := io.ReadAll(req.Body)
		if err != nil {
			http.Error(w, "half a request", http.StatusBadRequest)
			return
		}
		if req.Method == http.MethodPost {
			note(string(id))
		}
		_, _ = io.WriteString(w, of) // the caller went away
	})
}

// through answers what the service front says of a call that is made for it.
func through(task string) http.Handler {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if _, port, err := net.SplitHostPort(address); err == nil && strings.Contains(address, ".internal:") {
			address = net.JoinHostPort(nowhere, port)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dial}, Timeout: 10 * time.Second}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		seen := meshtest.Seen{Headers: req.Header}
		answer := answered{Service: task, Caller: seen.Caller()}
		resp, err := client.Get(fmt.Sprintf("http://%s:%d/", meshtest.HostOf("front"), meshtest.AppPort))
		if err != nil {
			http.Error(w, "calling front: "+err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = resp.Body.Close() }() // read to its end
		body, err := io.ReadAll(resp.Body)
		var beyond meshtest.Seen
		if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(body, &beyond) != nil {
			http.Error(w, fmt.Sprintf("calling front: %d %s", resp.StatusCode, body), http.StatusBadGateway)
			return
		}
		answer.Beyond = beyond.Caller()
		_ = json.NewEncoder(w).Encode(answer) // the caller went away
	})
}
