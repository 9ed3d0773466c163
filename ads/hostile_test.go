package ads_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"signet.example/ads"
)

// Of each response that has no answer what it gave is kept: a client that reads all and answers
// none has so many, and when it answers has what is newest.
func TestWhoReadsAndNeverAnswersIsSentSoMany(t *testing.T) {
	for _, delta := range []bool{true, false} {
		for _, url := range []string{cds, eds, sds, lds} {
			t.Run(fmt.Sprintf("delta=%t %s", delta, url[strings.LastIndexByte(url, '.')+1:]), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
					c := w.connect(delta)
					c.request(url, "", "a")
					for n := range 500 {
						w.publish(res(t, url, "a", strconv.Itoa(n)))
						synctest.Wait()
					}
					sent := len(c.in)
					if sent > 64 {
						t.Errorf("%d responses were sent, and none was answered", sent)
					}
					var last answer
					for range sent {
						last = c.next()
					}
					c.ack(last, "a")
					synctest.Wait()
					if sent < 500 {
						last = c.next()
						c.ack(last, "a")
					}
					if synctest.Wait(); !strings.HasSuffix(string(c.body), "a=499") {
						t.Errorf("it has %q", c.body)
					}
					c.silent()
				})
			})
		}
	}
}

// Answers to what was not sent yet, or was answered before, are none: nonces can be foretold.
func TestAnAnswerThatComesTooEarlyOrTwiceIsNoAnswer(t *testing.T) {
	for _, delta := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
			w.publish(res(t, sds, "s", "1"))
			c := w.connect(delta)
			c.request(sds, "", "s")
			first := c.next()
			id, at, _ := strings.Cut(first.Nonce, ".")
			n, err := strconv.Atoi(at)
			if err != nil {
				t.Fatalf("nonce %q: %v", first.Nonce, err)
			}
			early := first
			early.Nonce = fmt.Sprintf("%s.%d", id, n+1)
			c.nack(early, "no", "s")
			c.ack(early, "s")
			synctest.Wait()
			if acked := w.count(ads.Acked); acked != 0 {
				t.Errorf("delta=%t: %d are acknowledged", delta, acked)
			}
			c.ack(first, "s")
			synctest.Wait()
			c.nack(first, "s", "s") // it had taken it
			synctest.Wait()
			w.publish(res(t, sds, "s", "2"))
			second := c.next()
			if acked, rejected := w.count(ads.Acked), w.count(ads.Rejected); second.Nonce != early.Nonce || acked != 1 || rejected != 0 {
				t.Errorf("delta=%t: nonce %s after %s, %d are acknowledged, %d refused", delta, second.Nonce, first.Nonce, acked, rejected)
			}
			c.silent()
		})
	}
}

// Ten thousand changes of mind by one client, with answers to all that it is sent and to more, cost
// others nothing, and it few responses.
func TestAStormOfSubscriptionsIsAnsweredOnceInAWhile(t *testing.T) {
	w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
	w.publish(res(t, sds, "s", "1"), res(t, sds, "x", "1"))
	storm, other := w.connect(true), w.connect(true)
	other.subscribe(sds, "x")
	other.ack(other.next())
	storm.subscribe(sds, "s")
	id, _, _ := strings.Cut(storm.next().Nonce, ".")
	const changes = 10_000
	for n := range changes {
		storm.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: sds, ResourceNamesSubscribe: []string{"s", "none"}, ResourceNamesUnsubscribe: []string{"none"}, ResponseNonce: fmt.Sprintf("%s.%d", id, n+1),
		})
		if n%1000 == 0 {
			x := res(t, sds, "x", strconv.Itoa(n+2))
			w.publish(res(t, sds, "s", "1"), x)
			got := other.next()
			if other.ack(got); got.Versions["x"] != x.Version {
				t.Errorf("the other has %v, want %s", got.Versions, x.Version)
			}
		}
	}
	last := res(t, sds, "s", "last")
	w.publish(last, res(t, sds, "x", "1"))
	n := 0
	for has := ""; has != last.Version; n++ {
		got := storm.next()
		if storm.ack(got); got.Versions["s"] != "" {
			has = got.Versions["s"]
		}
	}
	t.Logf("%d responses", n)
	if n > changes/2 {
		t.Errorf("%d responses to %d changes of mind", n, changes)
	}
}
