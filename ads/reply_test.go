package ads_test

import (
	"testing"

	"signet.example/ads"
)

// XDS-02: a nonce that is not on its way, such as another stream's.
func TestAnAnswerToNothingIsNoAnswer(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, cds, "c", "1"))
		c.request(cds, "")
		sent := c.of(cds)
		other := sent
		other.Nonce = "0badcafe.1"
		c.ack(other)
		c.nack(other, "no")
		c.silent()
		if _, acked, _ := w.view.Acked(cds, "c"); acked != 0 || len(w.view.Rejected()) != 0 {
			t.Errorf("acknowledged %d times, refused %v", acked, w.view.Rejected())
		}
		c.ack(sent)
		c.silent()
		if _, acked, _ := w.view.Acked(cds, "c"); acked != 1 {
			t.Errorf("acknowledged %d times", acked)
		}
	})
}

// A secret that was replaced holds a private key: it is not kept for a proxy that
// comes later, though the new one was refused.
func TestARefusedSecretIsWithheldAndTheOldOneForgotten(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, ads.SecretType, "s", "1"))
		c.request(ads.SecretType, "", "s")
		c.ack(c.of(ads.SecretType), "s")
		w.publish(res(t, ads.SecretType, "s", "2"))
		c.nack(c.of(ads.SecretType), "no", "s")
		c.silent()
		late := w.connect(true)
		late.subscribe(ads.SecretType, "s")
		late.of(ads.SecretType).want(t, nil, []string{"s"})
	})
}
