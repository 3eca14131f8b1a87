package main

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"pinseal/internal/load"
)

// dial connects, waiting until somebody listens.
func dial(ctx context.Context, address string, cfg *tls.Config, o load.Options) (*load.Client, error) {
	raw, err := dialTCP(ctx, address)
	if err != nil {
		return nil, err
	}
	return load.Open(tls.Client(raw, cfg), o)
}

// dialTCP tries every millisecond: a broker that starts is met as soon as it listens.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Millisecond):
		}
	}
}
