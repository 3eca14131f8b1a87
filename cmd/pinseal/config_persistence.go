package main

import (
	"fmt"
	"time"

	"pinseal/broker"
)

// persistenceConfig is [persistence]: what the broker keeps over a restart, and how surely.
type persistenceConfig struct {
	Durability durability     `toml:"durability"`
	Interval   positiveLength `toml:"interval"`
}

// durability is "sync", "interval" or "none"; empty is "sync".
type durability string

func (d durability) check() error {
	switch d {
	case "", "sync", "interval", "none":
		return nil
	}
	return fmt.Errorf("%q is none of sync, interval, none", d)
}

func (p persistenceConfig) check(data []byte) error {
	if p.Interval > 0 && p.Durability != "interval" {
		return at(data, place{table: "persistence", key: "interval"}, `an interval is for durability = "interval"`)
	}
	return nil
}

// defaultWriteInterval bounds what a crash costs where durability is "interval", and how often a card is written.
const defaultWriteInterval = 10 * time.Second

func (p persistenceConfig) persistence(path string) broker.Persistence {
	switch {
	case p.Durability == "none":
		return broker.Persistence{}
	case p.Durability != "interval":
		return broker.Persistence{Path: path}
	case p.Interval == 0:
		return broker.Persistence{Path: path, Interval: defaultWriteInterval}
	}
	return broker.Persistence{Path: path, Interval: time.Duration(p.Interval)}
}
