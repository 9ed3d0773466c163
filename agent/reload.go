package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"signet.example/agent/envoy"
)

// reloadable are the keys that may differ in a configuration that is read again.
// A key that is not here needs a restart: so does each new one, until somebody
// has thought about it.
var reloadable = []string{"proxies", "proxy_user", "log_level", "token_file", "join", "trust", "trust_pem"}

// reload puts the proxies of another configuration into force, or refuses all of
// it. It is called by one goroutine at a time, and returns before those that are
// taken away have drained.
func (a *agent) reload(ctx context.Context, next Config) error {
	if err := next.Validate(); err != nil {
		return err
	}
	next, err := next.withDefaults().withUsers()
	if err != nil {
		return err
	}
	next.platform = a.cfg.platform // as it was at the start
	if next, err = next.withAddress(ctx); err != nil {
		return err
	}
	if keys := fixedKeys(a.cfg, next); len(keys) > 0 {
		return fmt.Errorf("%s cannot be changed by a reload: restart the agent for that", strings.Join(keys, ", "))
	}
	gone, added := changeOf(a.cfg.Proxies, next.Proxies)
	if err := errors.Join(tryProxies(ctx, next)...); err != nil {
		return err
	}
	a.relay.AllowFiles(filesOf(next.Proxies))
	if err := a.supervisor.Change(ctx, envoy.Change{Gone: gone, Added: proxiesOf(added, a.given)}); err != nil {
		a.relay.AllowFiles(filesOf(a.cfg.Proxies))
		return err
	}
	a.cfg.Proxies = next.Proxies
	var started []string
	for _, p := range added {
		started = append(started, p.Name)
	}
	a.log.InfoContext(ctx, "proxies changed", slog.Any("ended", gone), slog.Any("started", started))
	return nil
}

// fixedKeys are the keys in which two configurations differ and may not.
func fixedKeys(old, next Config) []string {
	var keys []string
	a, b := reflect.ValueOf(old), reflect.ValueOf(next)
	for i := range a.NumField() {
		key, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("yaml"), ",")
		if key == "-" || slices.Contains(reloadable, key) {
			continue
		}
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			keys = append(keys, key)
		}
	}
	return keys
}

// changeOf is what leads from one list of proxies to another: the names of those that
// end, and those that begin. One that differs is in both, unless it is in the folders of
// its files alone, which need no other Envoy.
func changeOf(old, next []Proxy) (gone []string, added []Proxy) {
	same := func(a, b Proxy) bool {
		a.TLSDirs = b.TLSDirs
		return reflect.DeepEqual(a, b)
	}
	for _, p := range old {
		if !slices.ContainsFunc(next, func(n Proxy) bool { return same(n, p) }) {
			gone = append(gone, p.Name)
		}
	}
	for _, n := range next {
		if !slices.ContainsFunc(old, func(p Proxy) bool { return same(n, p) }) {
			added = append(added, n)
		}
	}
	return gone, added
}
