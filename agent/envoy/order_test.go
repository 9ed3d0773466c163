package envoy

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestNoApplicationIsWaitedForLongerThanWasSaid(t *testing.T) {
	for name, c := range map[string]struct {
		asked []time.Duration
		early time.Duration
	}{
		"without end":         {[]time.Duration{time.Hour}, MostEarly},
		"for 10 s":            {[]time.Duration{10 * time.Second}, 10 * time.Second},
		"not at all":          {[]time.Duration{0}, 0},
		"for less than asked": {[]time.Duration{MostEarly, 5 * time.Second}, 5 * time.Second},
		"for no longer":       {[]time.Duration{5 * time.Second, MostEarly}, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &StopOrder{}
				for _, d := range c.asked {
					o.Ask(d)
				}
				if time.Sleep(c.early - 1); o.Early() != (c.early > 0) {
					t.Errorf("early before %s: %t", c.early, o.Early())
				}
				if time.Sleep(time.Nanosecond); o.Early() {
					t.Errorf("early after %s", c.early)
				}
			})
		})
	}
}
