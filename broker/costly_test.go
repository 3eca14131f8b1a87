package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"pinseal/broker"
)

// deepTopic has as many levels as there may be.
func deepTopic(i int) string { return fmt.Sprintf("%d%s", i, strings.Repeat("/x", 15)) }

// blindFilter makes the broker look at every level of every retained message, and finds none.
func blindFilter(i int) string { return strings.Repeat("+/", 15) + fmt.Sprint("nothing", i) }

// What a SUBSCRIBE makes the broker do is counted as messages are: a few bytes may have it look through everything that is
// retained.
func TestSubscriptionsAreThrottled(t *testing.T) {
	const most = 1000
	for name, test := range map[string]struct{ retained, filters int }{
		"many":   {0, 64},
		"costly": {200, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *broker.Config) { c.Limits.MaxPublishRate = most })
			publisher := s.connect(t, "alice", "")
			for i := range test.retained {
				await(t, publisher.Publish(deepTopic(i), 1, true, "1"))
			}
			c := s.dialRaw(t, "mallory")
			c.send(t, connect5("id"))
			c.read(t)
			for n := 0; s.Stats().ByReason[broker.ReasonThrottled] == 0; n++ {
				if n == most {
					t.Fatal("nothing was slowed down")
				}
				var filters []string
				for i := range test.filters {
					filters = append(filters, blindFilter(i))
				}
				c.asks(t, 0, filters...)
			}
		})
	}
}
