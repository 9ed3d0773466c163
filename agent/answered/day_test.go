package answered

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// day is one whose clock the test has.
func day(bytes int) (*Day, *time.Time) {
	now := noon
	d := New(bytes)
	d.now = func() time.Time { return now }
	return d, &now
}

func answer(n int, proxy, source, destination, kind string, at time.Time) *api.Decision {
	return &api.Decision{
		Id: fmt.Sprintf("%032x", n), Time: timestamppb.New(at), Proxy: proxy, Source: source, Destination: destination, Kind: kind,
		Method: "GET", Host: "orders.shop.internal", Path: fmt.Sprint("/orders/", n), Message: "nothing listens there (" + strings.Repeat("x", 100) + ")",
	}
}

func TestWhatIsAnsweredIsFoundByCallerCalleeAndTime(t *testing.T) {
	d, now := day(Bytes)
	web, batch, orders := "spiffe://td/shop/web", "spiffe://td/shop/batch", "spiffe://td/shop/orders"
	for i := range 90 { // seconds
		d.Add(answer(i, "orders", web, orders, "timeout", noon.Add(time.Duration(i)*time.Second)))
	}
	d.Add(answer(100, "orders", batch, orders, "denied", noon.Add(time.Hour)))
	nobody := answer(101, "orders", "", orders, "plaintext-refused", noon.Add(2*time.Hour))
	nobody.Peer = "10.1.2.3:4711"
	d.Add(nobody)
	host := answer(102, "web", web, "", "undeclared", noon.Add(3*time.Hour))
	host.Host = "other.internal:80"
	d.Add(host)
	*now = noon.Add(4 * time.Hour)
	for want, f := range map[string]*api.DecisionFilter{
		"undeclared 1, plaintext-refused 1, denied 1, timeout 90": {},
		"undeclared 1, timeout 90":                                {Source: "shop/web"},
		"timeout 90":                                              {Source: "web", Destination: "orders"},
		"timeout 60":                                              {Until: timestamppb.New(noon.Add(59 * time.Second))},
		"timeout 30":                                              {Since: timestamppb.New(noon.Add(time.Minute)), Until: timestamppb.New(noon.Add(10 * time.Minute))},
		"plaintext-refused 1":                                     {Source: "10.1.2.3"},
		"undeclared 1":                                            {Destination: "other.internal"},
		"":                                                        {Source: "shop/nobody"},
	} {
		var got []string
		for _, a := range d.List(f) {
			got = append(got, fmt.Sprint(a.GetKind(), " ", a.GetCount()))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%v: %v, want %s", f, got, want)
		}
	}
	if a := d.Get(fmt.Sprintf("%032x", 60)); a == nil || a.GetPath() != "/orders/60" || a.GetSource() != web || a.GetDestination() != orders || a.GetCount() != 30 {
		t.Errorf("by the id of the first of a minute: %v", a)
	}
	if a := d.Get(fmt.Sprintf("%032x", 102)); a == nil || a.GetDestination() != "" || a.GetHost() != "other.internal:80" {
		t.Errorf("what led nowhere: %v", a)
	}
	*now = noon.Add(24*time.Hour + time.Minute + 30*time.Second)
	if list := d.List(&api.DecisionFilter{Destination: "orders", Source: "web"}); len(list) != 0 {
		t.Errorf("after a day: %v", list)
	}
}

// TestADayOf1000AnswersASecondIsKeptWithin64MiB: of five proxies' 20 kinds from three callers each.
func TestADayOf1000AnswersASecondIsKeptWithin64MiB(t *testing.T) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d, now := day(Bytes)
	const minutes, proxies, kinds, callers = 24 * 60, 5, 20, 3
	n := 0
	for minute := range minutes {
		at := noon.Add(time.Duration(minute) * time.Minute)
		*now = at
		for p := range proxies {
			for k := range kinds {
				for c := range callers {
					for range 1 + minute%2 { // the others of a minute only count
						n++
						d.Add(answer(n, fmt.Sprint("p", p), fmt.Sprint("spiffe://td/shop/c", c), fmt.Sprint("spiffe://td/shop/n", p), fmt.Sprint("kind-", k), at))
					}
				}
			}
		}
		if d.size > d.bytes {
			t.Fatalf("minute %d: %d bytes", minute, d.size)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	heap := int(after.HeapAlloc) - int(before.HeapAlloc) //nolint:gosec // a few MiB
	t.Logf("%d answers: %d bytes by its own count, %d of heap", n, d.size, heap)
	if heap > 64<<20 {
		t.Errorf("%d bytes of heap", heap)
	}
	// Each kind of each pair is there in each hour of the day, and all are counted.
	for hour := range 24 {
		since := noon.Add(time.Duration(hour) * time.Hour)
		list := d.List(&api.DecisionFilter{Since: timestamppb.New(since), Until: timestamppb.New(since.Add(time.Hour - 1))})
		if len(list) != proxies*kinds*callers {
			t.Errorf("hour %d: %d of %d", hour, len(list), proxies*kinds*callers)
		}
	}
	var count uint64
	for _, a := range d.List(&api.DecisionFilter{}) {
		count += a.GetCount()
	}
	if count != uint64(n) {
		t.Errorf("%d answers are counted, of %d", count, n)
	}
}

func TestNoProxyHasTheAnswersOfAnotherOneForgotten(t *testing.T) {
	d, now := day(1 << 20)
	for i := range 100 {
		d.Add(answer(i, "quiet", "spiffe://td/shop/web", "spiffe://td/shop/orders", fmt.Sprint("kind-", i), noon))
	}
	for i := range 100_000 { // callers that it makes up
		*now = noon.Add(time.Duration(i) * time.Second / 2)
		d.Add(answer(1000+i, "taken over", fmt.Sprint("spiffe://td/shop/", i), "spiffe://td/shop/x", "denied", *now))
		if d.size > d.bytes {
			t.Fatalf("%d bytes", d.size)
		}
	}
	if list := d.List(&api.DecisionFilter{Destination: "orders"}); len(list) != 100 {
		t.Errorf("%d of 100 are kept", len(list))
	}
	if d.Get(fmt.Sprintf("%032x", 1000+99_999)) == nil {
		t.Error("the newest of the flood is not kept: it has room of its own")
	}
	size := 0
	for _, sh := range d.shares {
		of := 0
		for k, s := range sh.series {
			of += k.size()
			for _, r := range s.list {
				of += r.size()
			}
		}
		if of != sh.size {
			t.Errorf("a share of %d bytes says %d", of, sh.size)
		}
		size += of
	}
	if size != d.size {
		t.Errorf("%d bytes, it says %d", size, d.size)
	}
}

func TestWhatWasAnsweredIsKnownAfterARestart(t *testing.T) {
	dir := t.TempDir()
	keep := func(d *Day, during func()) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Keep(ctx, dir, slog.New(slog.DiscardHandler)) }()
		during()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	first := New(Bytes)
	at := time.Now().Add(-time.Hour)
	keep(first, func() {
		for i := range 5 {
			first.Add(answer(i, "orders", "spiffe://td/shop/web", "spiffe://td/shop/orders", "timeout", at))
		}
	})
	second := New(Bytes)
	if err := second.load(filepath.Join(dir, fileName)); err != nil {
		t.Fatal(err)
	}
	list := second.List(&api.DecisionFilter{})
	if len(list) != 1 || list[0].GetCount() != 5 || list[0].GetSource() != "spiffe://td/shop/web" || list[0].GetProxy() != "orders" {
		t.Errorf("%v", list)
	}
	// What is not whole is read as far as it goes, and never keeps an agent from starting.
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), append(b, b[:len(b)/2]...), 0o600); err != nil {
		t.Fatal(err)
	}
	third := New(Bytes)
	if err := third.load(filepath.Join(dir, fileName)); err == nil || len(third.List(&api.DecisionFilter{})) != 1 {
		t.Errorf("%v", err)
	}
}
