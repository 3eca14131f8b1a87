package broker

import (
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mochi-mqtt/server/v2/system"
)

// OnSysInfoTick publishes the $SYS topics that mochi has just made up for subscribers of its own.
func (h *hook) OnSysInfoTick(*system.Info) {
	for topic, pk := range h.broker.server.Topics.Retained.GetAll() {
		h.broker.announce(topic, pk.Payload)
	}
}

// announce publishes and retains a message of the broker's own.
func (b *Broker) announce(topic string, payload []byte) {
	m := newMessage(topic, payload, 0, true, &packets.Properties{}, time.Now())
	m.own = true
	_, _ = b.publish(m) // what the broker says itself is not refused
}

// countForMochi tells mochi what it does not see.
func (b *Broker) countForMochi() {
	info, stats := b.server.Info, b.Stats()
	atomic.StoreInt64(&info.Subscriptions, int64(stats.Subscriptions))
	atomic.StoreInt64(&info.Retained, int64(stats.Retained))
	atomic.StoreInt64(&info.MessagesSent, int64(stats.Sent)) //nolint:gosec // it counts from 0
}
