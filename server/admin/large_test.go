package admin_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"signet.example/api"
)

const tiny = "---\nkind: VirtualNode\napiVersion: appmesh.k8s.aws/v1beta2\nmetadata: {name: a}\n"

func TestALargeChangeIsReadWithinBoundsWhileOthersGoOn(t *testing.T) {
	d := newDesk(t)
	if _, err := d.applied(strings.Repeat(tiny, 5000), ""); err == nil || !strings.Contains(err.Error(), "is given twice") || !strings.Contains(err.Error(), "the rest is not read") {
		t.Errorf("one object many times: %.300v", err)
	}
	// As it is while one is read: others that are large wait, or give up; small ones do not.
	release := d.admin.ReadLarge()
	ctx, cancel := context.WithTimeout(d.ctx(), 50*time.Millisecond)
	defer cancel()
	large := &api.ApplyRequest{Sources: []*api.Source{{File: "large.yaml", Content: []byte(strings.Repeat("# nothing\n", 200_000))}}}
	if _, err := d.admin.Apply(ctx, large); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another large change") {
		t.Errorf("a large one beside it: %v", err)
	}
	beside, end := context.WithTimeout(d.ctx(), 50*time.Millisecond)
	defer end()
	d.done = nil
	if _, err := d.admin.Delete(beside, &api.DeleteRequest{Sources: large.GetSources()}); !errors.Is(err, context.DeadlineExceeded) || len(d.done) > 0 {
		t.Errorf("what is to be deleted is read while others wait for a change: %v, %q", err, d.done)
	}
	if _, err := d.applied(groupNamed("small"), ""); err != nil {
		t.Errorf("a small one beside it: %v", err)
	}
	release()
	gone, stop := context.WithCancel(d.ctx())
	stop()
	if _, err := d.admin.Apply(gone, applyOf(groupNamed("late"))); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits for it any more: %v", err)
	}
}
