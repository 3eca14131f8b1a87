package main

import (
	"context"
	"crypto/tls"
	"slices"

	"pinseal/internal/load"
)

// client is the client of a party.
type client = load.Client

// dial connects and subscribes to the filters at QoS 0. hear gets what is published on them, one after the other, and
// may publish itself.
func dial(ctx context.Context, address string, cfg *tls.Config, hear func(topic string, payload []byte), filters ...string) (*client, error) {
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	o := load.Options{Filters: filters}
	if hear != nil {
		o.Hear = func(topic, payload []byte) { hear(string(topic), slices.Clone(payload)) }
	}
	return load.Open(conn, o)
}
