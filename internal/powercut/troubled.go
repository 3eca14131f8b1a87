package main

import (
	"errors"
	"fmt"
	"time"

	"pinseal/signing/replay"
)

// troubledLives meet calls that fail: whatever it is, they act on nothing and acknowledge nothing that is not on the
// disk, and they go on without a restart.
func troubledLives() []life {
	if !canFail {
		return nil
	}
	return []life{
		{name: "commands in trouble", live: liveCommands, judge: judgeReplay, troubled: true},
		{name: "publishes in trouble", live: livePublishes, judge: judgeBroker, troubled: true},
		{name: "outbox in trouble", live: liveTelemetry, judge: judgeOutbox, troubled: true},
		{name: "journal in trouble", live: liveJournal, judge: judgeJournal, troubled: true, appends: true},
	}
}

// tries are enough after one call that failed.
const tries = 8

// until tries again what failed.
func until(what string, try func() error) (err error) {
	for range tries {
		if err = try(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s does not recover: %w", what, err)
}

// liveCommands is a node that is started twice. A command that was not recorded is sent again as it is.
func liveCommands(folder string, tell func(string, ...any)) error {
	for range 2 {
		var s *replay.Store
		if err := until("starting", func() (err error) { s, err = openStore(folder, nil); return err }); err != nil {
			return err
		}
		tell("opened")
		for n := uint64(1); n <= perOutput; n++ {
			for _, output := range []string{"led", "fan"} {
				if err := until("commanding", func() error {
					o, c := s.Command("kid", output, n, digest(output, n))
					if o != replay.New {
						return nil
					}
					err := c.Wait()
					if err == nil {
						tell("acted %s %d", output, n)
					}
					return err
				}); err != nil {
					return err
				}
			}
			s.Telemetry("kid", "topic", n, digest("topic", n))
		}
		_ = s.Close() // what may be forgotten is telemetry
	}
	return nil
}

// livePublishes is a broker that is started twice. A message that was not acknowledged is published again as another.
func livePublishes(folder string, tell func(string, ...any)) error {
	for range 2 {
		var p *pipes
		var stop func() error
		if err := until("starting", func() (err error) { p, stop, err = startBroker(folder); return err }); err != nil {
			return err
		}
		if err := until("subscribing", func() error { return subscribeReader(p, tell) }); err != nil {
			return err
		}
		for range publications {
			for _, topic := range []string{"x", "r"} {
				if err := until("publishing", func() error { return publishOne(p, topic, tell) }); err != nil {
					return err
				}
			}
		}
		_ = stop() // what may be forgotten was not acknowledged
	}
	return nil
}

func publishOne(p *pipes, topic string, tell func(string, ...any)) error {
	c, _, err := p.dial("")
	if err != nil {
		return err
	}
	flags := byte(0)
	if topic == "r" {
		flags = 1 // retained
	}
	n := time.Now().UnixNano()
	tell("publishing %s %d", topic, n)
	if err = c.publish(flags, topic, n); err == nil {
		tell("published %s %d", topic, n)
	}
	return errors.Join(err, c.bye())
}

// liveTelemetry is an outbox that is opened twice.
func liveTelemetry(folder string, tell func(string, ...any)) error {
	if err := tellBoot(tell); err != nil {
		return err
	}
	for range 2 {
		if err := until("the outbox", func() error { return fillOutbox(folder, tell) }); err != nil {
			return err
		}
	}
	return nil
}
