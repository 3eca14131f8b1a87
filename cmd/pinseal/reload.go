package main

import (
	"context"
	"reflect"
	"slices"
	"strings"
)

// reloadConfig is [reload].
type reloadConfig struct {
	OnChange bool `toml:"on_change"`
}

// files are those that a reload reads: all that stand in the configuration, and those that have their places.
func (c *config) files(l layout) []string {
	files := []string{l.config, l.signers, l.joined(), l.recipients(), l.decryptKey(), l.denied()}
	if shared, err := filesIn(l.encryption().shared, "shared-*.key"); err == nil {
		files = append(files, shared...)
	}
	for _, path := range c.paths() {
		files = append(files, *path)
	}
	if keys := c.Auth.Token.JWKS; !keys.isURL() {
		files = append(files, string(keys))
	}
	tls := c.tlsFiles(l)
	files = append(files, tls.Certificate, tls.Key, tls.CA, tls.CRL)
	return slices.DeleteFunc(files, func(path string) bool { return path == "" })
}

// watchFiles reloads when files have changed, until ctx ends.
func (n *node) watchFiles(ctx context.Context, reload chan<- struct{}) {
	if !n.config.Reload.OnChange {
		return
	}
	n.files.Run(ctx, func() {
		select {
		case reload <- struct{}{}:
		case <-ctx.Done():
		}
	})
}

// reloadChanged is a reload that nobody has asked for: who is half done with a change gets a line in the log for it. What
// has been revoked is refused all the same.
func (n *node) reloadChanged() {
	n.log.Info("files have changed, reloading")
	if n.reloadAndTell() {
		return
	}
	if err := n.Deny(); err != nil {
		n.log.Error("revocations cannot be read", "error", err)
	}
}

// reloadable are the fields of the configuration that a reload puts into effect.
func reloadable() []string {
	return []string{"Limits", "Permits", "Telemetry", "Legacy", "Auth", "Roles", "ACL", "Encrypt"}
}

// untilRestart is what holds of a configuration before the next start: what a reload puts into effect is new, all else is as
// the node was started with. So the topics that are the node's alone, and on which no command is retained, are those it
// has. A permit for an output that comes with the next start waits for it.
func (n *node) untilRestart(cfg *config) *config {
	held := *n.config
	from, to := reflect.ValueOf(cfg).Elem(), reflect.ValueOf(&held).Elem()
	for _, field := range reloadable() {
		to.FieldByName(field).Set(from.FieldByName(field))
	}
	held.Agent.MaxAge, held.Agent.Rate, held.Agent.Burst = cfg.Agent.MaxAge, cfg.Agent.Rate, cfg.Agent.Burst
	held.source = cfg.source
	held.Permits = slices.DeleteFunc(slices.Clone(cfg.Permits), func(p permitConfig) bool {
		_, there := held.output(string(p.Output))
		return !there
	})
	held.Legacy = slices.DeleteFunc(slices.Clone(cfg.Legacy), func(l legacyConfig) bool {
		return !slices.ContainsFunc(held.Outputs, func(o outputConfig) bool { return o.Topic == l.Topic })
	})
	return &held
}

// warnOfRestart says which changes of the configuration have no effect yet.
func (n *node) warnOfRestart(cfg *config) {
	// Those of [agent] that are part of the policy.
	before, now := *n.config, *cfg
	before.Agent.MaxAge, before.Agent.Rate, before.Agent.Burst = now.Agent.MaxAge, now.Agent.Rate, now.Agent.Burst
	var waiting []string
	old := reflect.ValueOf(before)
	for field, value := range reflect.ValueOf(now).Fields() {
		if field.IsExported() && !slices.Contains(reloadable(), field.Name) && !reflect.DeepEqual(old.FieldByIndex(field.Index).Interface(), value.Interface()) {
			waiting = append(waiting, field.Tag.Get("toml"))
		}
	}
	if len(waiting) > 0 {
		n.log.Warn("a change takes effect with the next start only", "of", strings.Join(waiting, ", "))
	}
}
