package cloudmap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"signet.example/internal/watched"
	"signet.example/proxy"
)

func TestAnInstanceIsCalledAtAnAddressAmongHostsOfTheFamilyThatIsPreferred(t *testing.T) {
	both := map[string]string{attributeIPv4: "10.0.0.1", attributeIPv6: "fd00::1"}
	for _, c := range []struct {
		attributes map[string]string
		preference string
		want       Instance
	}{
		{both, "", Instance{Address: "10.0.0.1"}},
		{both, "IPv4_PREFERRED", Instance{Address: "10.0.0.1"}},
		{both, "IPv6_PREFERRED", Instance{Address: "fd00::1"}},
		{both, "IPv6_ONLY", Instance{Address: "fd00::1"}},
		{map[string]string{attributeIPv4: "10.0.0.1"}, "IPv6_ONLY", Instance{}},
		{map[string]string{attributeIPv4: "10.0.0.1"}, "IPv6_PREFERRED", Instance{Address: "10.0.0.1"}},
		{map[string]string{attributeIPv6: "fd00::1"}, "", Instance{Address: "fd00::1"}},
		{map[string]string{attributeIPv6: "fd00::1"}, "IPv4_ONLY", Instance{}},
		{map[string]string{attributeIPv4: "10.0.0.1", attributePort: "9090"}, "", Instance{"10.0.0.1", 9090}},
		{map[string]string{attributeIPv4: "10.0.0.1", attributePort: "0"}, "", Instance{}},
		{map[string]string{attributeIPv4: "10.0.0.1", attributePort: "99999"}, "", Instance{}},
		{map[string]string{attributeIPv4: "127.0.0.1"}, "", Instance{}},
		{map[string]string{attributeIPv4: "169.254.169.254"}, "", Instance{}},
		{map[string]string{attributeIPv4: "0.0.0.0"}, "", Instance{}},
		{map[string]string{attributeIPv4: "224.0.0.1"}, "", Instance{}},
		{map[string]string{attributeIPv6: "::ffff:127.0.0.1"}, "", Instance{}},
		{map[string]string{attributeIPv6: "::ffff:10.0.0.1"}, "IPv6_ONLY", Instance{}},
		{map[string]string{attributeIPv4: "fd00::1"}, "IPv4_ONLY", Instance{}},
		{map[string]string{attributeIPv4: "fd00::1", attributeIPv6: "fd00::2"}, "", Instance{Address: "fd00::2"}},
		{map[string]string{attributeIPv6: "10.0.0.1"}, "IPv6_ONLY", Instance{}},
		{map[string]string{attributeIPv6: "64:ff9b::169.254.169.254"}, "", Instance{}},
		{map[string]string{attributeIPv6: "2002:7f00:1::1"}, "", Instance{}},
		{map[string]string{attributeIPv4: "10.0.0.1", attributePort: " 80"}, "", Instance{}},
		{map[string]string{attributeIPv4: "10.0.0.1", attributePort: "+80"}, "", Instance{}},
		{map[string]string{attributeIPv4: "10.0.0.1", attributePort: ""}, "", Instance{}},
		{map[string]string{attributeIPv4: "010.0.0.1"}, "", Instance{}},
		{map[string]string{attributeIPv6: "fe80::1%eth0"}, "", Instance{}},
		{map[string]string{attributeIPv4: "not one"}, "", Instance{}},
		{map[string]string{"AWS_INSTANCE_CNAME": "a.example"}, "", Instance{}},
	} {
		if got, ok := callable(c.attributes, c.preference); ok != (c.want.Address != "") || ok && got != c.want {
			t.Errorf("%v, %q: %+v, %t", c.attributes, c.preference, got, ok)
		}
	}
}

// fake is a Cloud Map with one service, and what is asked of it.
type fake struct {
	sync.Mutex
	asked             map[proxy.Ref]Question
	list              []Instance
	revision          int64
	err               error
	discovers, checks int
	lists             int // how often it was asked which questions there are
}

func (f *fake) Discover(context.Context, Question) ([]Instance, int64, error) {
	f.Lock()
	defer f.Unlock()
	f.discovers++
	return slices.Clone(f.list), f.revision, f.err
}

func (f *fake) Revision(context.Context, Question) (int64, error) {
	f.Lock()
	defer f.Unlock()
	f.checks++
	return f.revision, f.err
}

// become changes it.
func (f *fake) become(change func()) {
	f.Lock()
	defer f.Unlock()
	change()
}

// questions are those that there are now.
func (f *fake) questions() map[proxy.Ref]Question {
	f.Lock()
	defer f.Unlock()
	f.lists++
	return f.asked
}

var orders = proxy.Node("shop", "orders")

// slow answers for one service at once, and for others never.
type slow struct{ fake }

func (f *slow) Discover(ctx context.Context, q Question) ([]Instance, int64, error) {
	if q.Service != "orders" {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return f.fake.Discover(ctx, q)
}

func TestAnAnswerIsToldWithoutWaitingForThoseThatDoNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &slow{fake{list: []Instance{{"10.0.0.1", 0}}, revision: 1, asked: map[proxy.Ref]Question{
			orders: {Namespace: "shop.local", Service: "orders"}, proxy.Node("shop", "web"): {Namespace: "shop.local", Service: "web"},
		}}}
		var told atomic.Int64
		begun := time.Now()
		s := New(Config{
			Asked: f.questions, Asker: f, Every: 5 * time.Second, Shared: &watched.Value[*Answers]{}, Log: slog.New(slog.DiscardHandler), Clock: time.Now,
			Changed:  func() { told.CompareAndSwap(0, int64(time.Since(begun)+1)) },
			Failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "failures"}, []string{"service"}),
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(time.Minute)
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if after := time.Duration(told.Load()); after == 0 || after > time.Second {
			t.Errorf("told after %s", after)
		}
	})
}

// What comes due while others are looked at is the next to be asked, and not forgotten.
func TestWhatComesDueWhileOthersAreLookedAtIsAskedNext(t *testing.T) {
	begun := time.Now()
	reads := 0
	s := New(Config{
		Asker: &fake{}, Every: 5 * time.Second, Shared: &watched.Value[*Answers]{}, Log: slog.New(slog.DiscardHandler),
		Clock: func() time.Time { reads++; return begun.Add(time.Duration(reads) * 10 * time.Millisecond) },
	})
	q := Question{Namespace: "shop.local", Service: "orders"}
	s.tried[orders] = &attempt{of: q, err: "no answer", next: begun.Add(15 * time.Millisecond)}
	var calls sync.WaitGroup
	if next := s.refresh(t.Context(), map[proxy.Ref]Question{orders: q}, &calls); next > 15*time.Millisecond {
		t.Errorf("it is asked in %s", next)
	}
	calls.Wait()
}

// A hundred services of which nobody hears keep nobody waiting who is.
func TestServicesThatDoNotAnswerDelayNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &slow{fake{list: []Instance{{"10.0.0.1", 0}}, revision: 1, asked: map[proxy.Ref]Question{orders: {Namespace: "shop.local", Service: "orders"}}}}
		for n := range 100 {
			name := fmt.Sprintf("web-%d", n)
			f.asked[proxy.Node("shop", name)] = Question{Namespace: "shop.local", Service: name}
		}
		s := New(Config{
			Asked: f.questions, Asker: f, Every: 5 * time.Second, Shared: &watched.Value[*Answers]{}, Log: slog.New(slog.DiscardHandler), Clock: time.Now,
			Changed: func() {}, Failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "failures"}, []string{"service"}),
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(2 * time.Minute) // each was asked, and is known to fail
		for n := range 20 {
			at := fmt.Sprintf("10.0.1.%d", n)
			f.become(func() { f.list, f.revision = []Instance{{at, 0}}, f.revision+1 })
			time.Sleep(7 * time.Second)
			synctest.Wait()
			if list, _ := s.Answers().Of(orders); len(list) != 1 || list[0].Address != at {
				t.Errorf("after 7 s the answer is %v, want %s", list, at)
			}
		}
		if n := len(s.Failing()); n != 100 {
			t.Errorf("%d are failing", n)
		}
		begun := time.Now()
		stop()
		if err := <-done; err != nil || time.Since(begun) > 0 {
			t.Errorf("it ended after %s: %v", time.Since(begun), err)
		}
	})
}

func TestAnAnswerIsKeptWhileCloudMapFailsAndBelievedWhenItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, log := filepath.Join(t.TempDir(), "cloudmap.json"), slog.New(slog.DiscardHandler)
		file, err := OpenFile(path, log)
		if err != nil {
			t.Fatal(err)
		}
		f := &fake{list: []Instance{{"10.0.0.1", 0}}, revision: 1, asked: map[proxy.Ref]Question{orders: {Namespace: "shop.local", Service: "orders"}}}
		changes := watched.NewSignal()
		s := New(Config{
			Asked: f.questions, Asker: f, Every: 5 * time.Second, Shared: file, Changed: changes.Wake, Log: log, Clock: time.Now,
			Failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "failures"}, []string{"service"}),
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		for _, run := range []func(context.Context) error{s.Run, file.Run} {
			go func() { done <- run(ctx) }()
		}
		defer func() {
			stop()
			if err := errors.Join(<-done, <-done); err != nil {
				t.Error(err)
			}
		}()
		has := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			list, _ := s.Answers().Of(orders)
			var got []string
			for _, i := range list {
				got = append(got, i.Address)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %v, want %v", when, got, want)
			}
		}
		has("asked at once", "10.0.0.1")
		lists := 0 // of what is asked for
		f.become(func() { lists = f.lists })
		time.Sleep(time.Minute)
		synctest.Wait()
		f.become(func() {
			if n := f.lists - lists; n > 20 {
				t.Errorf("in a minute without a change what is asked for was listed %d times", n)
			}
			if f.discovers > 4 || f.checks < 7 || f.checks > 16 {
				t.Errorf("in a minute without a change: asked for instances %d times, for the revision %d times", f.discovers, f.checks)
			}
			f.list, f.revision = []Instance{{"10.0.0.2", 0}, {"10.0.0.3", 0}}, 2
		})
		time.Sleep(6 * time.Second)
		has("an instance that went and two that came", "10.0.0.2", "10.0.0.3")
		f.become(func() { f.list = f.list[:1] }) // it is unhealthy: the revision is the same
		time.Sleep(40 * time.Second)
		has("one that is not healthy any more", "10.0.0.2")
		f.become(func() { f.err, f.list = errors.New("no such service\nhere"), nil })
		time.Sleep(10 * time.Minute)
		has("ten minutes of failures", "10.0.0.2")
		if n := testutil.ToFloat64(s.Failures.WithLabelValues("orders.shop.local")); n < 10 || n > 40 {
			t.Errorf("%v questions failed", n)
		}
		if why := s.Failing()[orders]; why.Err == "" || why.Answered.IsZero() {
			t.Errorf("failing: %+v", why)
		}
		again, err := OpenFile(path, log)
		if list, ok := again.Load().Of(orders); err != nil || !ok || len(list) != 1 {
			t.Errorf("after a restart: %v, %v", list, err)
		}
		f.become(func() { f.err = nil }) // and it says that nobody is there
		time.Sleep(70 * time.Second)
		has("an answer that nobody is there")
		if len(s.Failing()) != 0 {
			t.Errorf("failing: %v", s.Failing())
		}
		f.become(func() {
			f.list = []Instance{{"10.0.0.4", 0}}
			f.asked = map[proxy.Ref]Question{orders: {Namespace: "shop.local", Service: "orders", Attributes: map[string]string{"stage": "blue"}}}
		})
		s.Renew()
		has("another question", "10.0.0.4")
		f.become(func() { f.asked = nil })
		s.Renew()
		synctest.Wait()
		if _, ok := s.Answers().Of(orders); ok {
			t.Error("an answer to what is not asked any more is kept")
		}
	})
}

func TestWhereCloudMapIsAskedIsChecked(t *testing.T) {
	for key, bad := range map[string][]Where{
		"":         {{}, {Region: "eu-west-1"}, {Region: "us-gov-west-1", Role: "arn:aws:iam::123456789012:role/signet", Every: time.Second}, {Region: "eu-west-1", Endpoint: "https://vpce.example"}, {Region: "eu-west-1", Endpoint: "http://127.0.0.1:5000"}},
		"region":   {{Role: "arn:aws:iam::123456789012:role/signet"}, {Endpoint: "https://a.example"}, {Region: "eu-west-1.evil.example/"}},
		"role":     {{Region: "eu-west-1", Role: "signet"}},
		"every":    {{Region: "eu-west-1", Every: time.Millisecond}, {Region: "eu-west-1", Every: -1}},
		"endpoint": {{Region: "eu-west-1", Endpoint: "http://10.0.0.1"}, {Region: "eu-west-1", Endpoint: "a.example"}, {Region: "eu-west-1", Endpoint: "https://user@a.example"}, {Region: "eu-west-1", Endpoint: "http://localhost.evil.example"}},
	} {
		for _, w := range bad {
			if got, why := w.Validate(); got != key {
				t.Errorf("%+v: %q %s", w, got, why)
			}
		}
	}
}
