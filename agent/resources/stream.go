package resources

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
)

// Follow runs a client's stream over and over until ctx ends. What it has is
// kept between streams, so that a server sends only what differs.
func Follow(ctx context.Context, c *ads.Client, log *slog.Logger) error {
	for tries := (retry.Tries{Policy: svids.Asking}); ; {
		begun := time.Now()
		err := c.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		log.InfoContext(ctx, "upstream stream ended", slog.String("node", c.Node.GetId()), slog.Any("err", err))
		if !watched.Sleep(ctx, tries.Failed(time.Since(begun), err)) {
			return nil
		}
	}
}

// Complete reports whether got is what view describes, type by type.
func Complete(view *ads.Resource, got *ads.Set) bool {
	var v api.View
	if proto.Unmarshal(view.Body, &v) != nil {
		return false
	}
	for typeURL, version := range v.GetSetVersions() {
		if got.TypeVersion(typeURL) != version {
			return false
		}
	}
	for _, typeURL := range got.Types() {
		if _, ok := v.GetSetVersions()[typeURL]; !ok && typeURL != ads.ViewType {
			return false
		}
	}
	return true
}
