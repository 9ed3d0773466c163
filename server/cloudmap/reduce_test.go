package cloudmap

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// asking is Cloud Map as this endpoint has it.
func asking(t *testing.T, answer http.HandlerFunc) *AWS {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // whoever answers before that has the client end the connection
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	a, err := Where{Region: "eu-west-1", Endpoint: s.URL}.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWhatIsNoAnswerOfCloudMapIsNotBelieved(t *testing.T) {
	const one = `{"Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "80"}}`
	for _, c := range []struct {
		body string
		want []Instance // nil for an error
	}{
		{`{"InstancesRevision": 7, "Instances": [` + one + `], "More": {"a": [1]}}`, []Instance{{"10.0.0.1", 80}}},
		{`{"Instances": []}`, []Instance{}},
		{`{"Instances": [` + strings.Repeat(`{},`, 2*mostInstances) + one + `]}`, []Instance{}},
		{`{"Instances": [` + strings.Repeat(one+",", 2*mostInstances) + one + `]}`, []Instance{{"10.0.0.1", 80}}},
		{`{"Instances": [{"Attributes": {"aws_instance_ipv4": "10.0.0.1", "\ud800": "\u0000\n"}}, {"Attributes": null, "InstanceId": {"x": 1}}]}`, []Instance{}},
		{`{"Instances": [{"Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "` + strings.Repeat("0", 46) + `80"}}]}`, []Instance{}},
		{"", nil},
		{"{}", nil},
		{"[]", nil},
		{"null", nil},
		{"<html>", nil},
		{`{"Instances": null}`, nil},
		{`{"Instances": {}}`, nil},
		{`{"InstancesRevision": 7}`, nil},
		{`{"InstancesRevision": "7", "Instances": []}`, nil},
		{`{"Instances": [` + one, nil},
		{`{"Instances": [` + one + `]`, nil},
		{`{"Instances": [1]}`, nil},
		{`{"Instances": [{"Attributes": {"AWS_INSTANCE_IPV4": 1}}]}`, nil},
		{`{"Instances": [` + strings.Repeat("[", 20_000) + `]}`, nil},
		{`{"Instances": [{"Attributes": {"x": "` + strings.Repeat("x", mostValue+16<<10) + `"}}]}`, nil},
		{`{"x": "` + strings.Repeat("x", 2*mostValue) + `", "Instances": []}`, nil},
	} {
		list, _, err := asking(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(c.body)) }).Discover(t.Context(), Question{Namespace: "shop.local", Service: "orders"})
		if (err == nil) != (c.want != nil) || !slices.Equal(list, c.want) {
			t.Errorf("%.200s: %v, %v", c.body, list, err)
		}
	}
}

// Of what no address and no port is nothing is kept, and of what no answer is little in an error.
func TestTextsOfAnAnswerThatAreTooLongAreNotKept(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	left, err := reduce(strings.NewReader(`{"Instances": [{"Attributes": {"AWS_INSTANCE_IPV4": "` + long + `", "AWS_INSTANCE_PORT": "` + long + `"}}]}`))
	if err != nil || len(left) > 100 || !strings.Contains(string(left), attributePort) {
		t.Errorf("%d bytes are kept: %.200s, %v", len(left), left, err)
	}
	for _, body := range []string{`{"` + long + `": ]}`, `"` + long + `"`} {
		if _, err := reduce(strings.NewReader(body)); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.20s: %.300v", body, err)
		}
	}
}

// 36 MB are what a service's instances can have by the API's own bounds, and any number of
// services can have them.
func TestALargeAnswerIsNotInMemoryAsAWhole(t *testing.T) {
	attributes := `"AWS_INSTANCE_IPV4": "10.0.%d.%d"`
	for n := range 29 {
		attributes += fmt.Sprintf(`, "%s%d": "%s"`, strings.Repeat("k", 250), n, strings.Repeat("v", 1000))
	}
	var live uint64
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	r, w := io.Pipe()
	go func() {
		_, _ = fmt.Fprint(w, `{"Instances": [`) // as each of these: who reads has failed where it is not taken
		for n := range mostInstances {
			if n > 0 {
				_, _ = fmt.Fprint(w, ",")
			}
			_, _ = fmt.Fprintf(w, `{"Attributes": {`+attributes+`}}`, n/256, n%256)
		}
		live = heap() // all of it was taken
		_, _ = fmt.Fprint(w, `], "InstancesRevision": 9}`)
		_ = w.Close()
	}()
	left, err := reduce(r)
	if err != nil || strings.Count(string(left), attributeIPv4) != mostInstances || len(left) > 100*mostInstances {
		t.Fatalf("%d bytes are left, %v", len(left), err)
	}
	if most := before + 8<<20; live > most {
		t.Errorf("%d MiB are in memory of an answer of 36", (live-before)>>20)
	}
}

// An answer that is on its way is read to its end (whole of internal/awsclient): a third of those
// that come in pieces were not.
func TestAnAnswerThatComesInPiecesIsRead(t *testing.T) {
	a := asking(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"Instances": [`+strings.Repeat(`{}, `, 2000))
		w.(http.Flusher).Flush()
		time.Sleep(time.Millisecond)
		_, _ = fmt.Fprint(w, `{}]}`)
	})
	failed := 0
	for range 60 {
		if _, _, err := a.Discover(t.Context(), Question{Namespace: "shop.local", Service: "orders"}); err != nil {
			if failed++; failed == 1 {
				t.Error(err)
			}
		}
	}
	if failed > 0 {
		t.Errorf("%d of 60 answers failed", failed)
	}
}

func TestAnErrorOfCloudMapIsReadAsFarAsAnErrorGoes(t *testing.T) {
	var sent atomic.Int64
	_, err := asking(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amzn-ErrorType", "NamespaceNotFound")
		w.WriteHeader(http.StatusBadRequest)
		for range 64 {
			n, err := w.Write([]byte(strings.Repeat("x", 1<<20)))
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}).Revision(t.Context(), Question{Namespace: "shop.local", Service: "orders"})
	if err == nil || len(err.Error()) > 128<<10 || sent.Load() > 32<<20 {
		t.Errorf("of an error of 64 MiB %d MiB were taken: %.100v", sent.Load()>>20, err)
	}
}
