package broker

import (
	"fmt"
	"math"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// systemInterval is mosquitto's default.
const systemInterval = 10 * time.Second

// traffic counts what is read from clients and written to them.
type traffic struct {
	bytesIn, bytesOut, packetsIn, packetsOut, payloadIn, payloadOut, sockets, expired atomic.Uint64
}

// system is what is remembered from one publication of the $SYS topics to the next. It belongs to the goroutine of tick.
type system struct {
	interval    time.Duration
	began, last time.Time
	mostClients int
	mostHeap    int
	before      map[string]uint64     // what was counted, by what it is the load of
	loads       map[string][3]float64 // averages of a minute, over loadMinutes
	said        map[string]string
}

// loadMinutes are those of the averages, as of a system's load.
func loadMinutes() [3]int { return [3]int{1, 5, 15} }

// publishSystem publishes the $SYS topics that mosquitto has, where they have changed. Who may read them is a matter of
// the policy, like everything.
func (b *Broker) publishSystem(now time.Time) {
	y := &b.system
	if y.began.IsZero() {
		y.began, y.last, y.said = now, now, map[string]string{}
		y.before, y.loads = map[string]uint64{}, map[string][3]float64{}
	} else if now.Sub(y.last) < y.interval {
		return
	}
	for topic, value := range b.systemValues(now) {
		if old, ok := y.said[topic]; ok && old == value {
			continue
		}
		y.said[topic] = value
		b.announce("$SYS/broker/"+topic, []byte(value))
	}
	y.last = now
}

// systemValues are all of them, by their topic below $SYS/broker.
func (b *Broker) systemValues(now time.Time) map[string]string {
	y, s := &b.system, b.Stats()
	values := map[string]string{
		"version": b.version,
		"uptime":  fmt.Sprintf("%d seconds", int(now.Sub(y.began).Seconds())),
	}
	for topic, n := range b.systemState(s) {
		values[topic] = strconv.Itoa(n)
	}
	for topic, n := range b.systemCounts(s) {
		values[topic] = strconv.FormatUint(n, 10)
	}
	for name, n := range b.systemLoads(s) {
		for i, load := range y.load(name, n, now) {
			values[fmt.Sprintf("load/%s/%dmin", name, loadMinutes()[i])] = fmt.Sprintf("%.2f", load)
		}
	}
	return values
}

// systemState is what there is at this moment.
func (b *Broker) systemState(s Stats) map[string]int {
	y := &b.system
	connected, stored, storedBytes := b.held()
	heap := heapBytes()
	y.mostClients, y.mostHeap = max(y.mostClients, s.Sessions), max(y.mostHeap, heap)
	return map[string]int{
		"clients/connected":          connected,
		"clients/active":             connected, // the old name
		"clients/disconnected":       s.Sessions - connected,
		"clients/inactive":           s.Sessions - connected, // the old name
		"clients/maximum":            y.mostClients,
		"clients/total":              s.Sessions,
		"messages/stored":            stored, // the old name
		"store/messages/count":       stored,
		"store/messages/bytes":       storedBytes,
		"retained messages/count":    s.Retained,
		"subscriptions/count":        s.Subscriptions,
		"shared_subscriptions/count": b.index.lenShared(),
		"heap/current":               heap,
		"heap/maximum":               y.mostHeap,
	}
}

// systemCounts is what has been counted since the start.
func (b *Broker) systemCounts(s Stats) map[string]uint64 {
	t := &b.journal.traffic
	return map[string]uint64{
		"clients/expired":           t.expired.Load(),
		"bytes/received":            t.bytesIn.Load(),
		"bytes/sent":                t.bytesOut.Load(),
		"messages/received":         t.packetsIn.Load(),
		"messages/sent":             t.packetsOut.Load(),
		"publish/messages/received": s.Received,
		"publish/messages/sent":     s.Sent,
		"publish/messages/dropped":  s.ByReason[ReasonQueueFull],
		"publish/bytes/received":    t.payloadIn.Load(),
		"publish/bytes/sent":        t.payloadOut.Load(),
	}
}

// systemLoads is that of which there are averages.
func (b *Broker) systemLoads(s Stats) map[string]uint64 {
	t := &b.journal.traffic
	return map[string]uint64{
		"bytes/received": t.bytesIn.Load(), "bytes/sent": t.bytesOut.Load(),
		"messages/received": t.packetsIn.Load(), "messages/sent": t.packetsOut.Load(),
		"publish/received": s.Received, "publish/sent": s.Sent, "publish/dropped": s.ByReason[ReasonQueueFull],
		"connections": s.Accepted, "sockets": t.sockets.Load(),
	}
}

// load takes what was counted since the last time into the moving averages.
func (y *system) load(name string, count uint64, now time.Time) [3]float64 {
	loads := y.loads[name]
	if passed := now.Sub(y.last); passed > 0 {
		aMinute := float64(count-y.before[name]) / passed.Minutes()
		for i, minutes := range loadMinutes() {
			loads[i] = aMinute + math.Exp(-passed.Minutes()/float64(minutes))*(loads[i]-aMinute)
		}
	}
	y.before[name], y.loads[name] = count, loads
	return loads
}

// held counts the sessions that have a client, and the messages that are retained or wait for an acknowledgement.
func (b *Broker) held() (connected, messages, bytes int) {
	messages, bytes = b.retained.size()
	for _, s := range b.snapshotSessions() {
		if s.connected.Load() {
			connected++
		}
		s.mu.Lock()
		messages, bytes = messages+s.queue.length, bytes+s.queue.bytes
		s.mu.Unlock()
	}
	return connected, messages, bytes
}

// heapBytes is what the process has on its heap. It stops nothing, as runtime.ReadMemStats would.
func heapBytes() int {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64()) //nolint:gosec // less than the address space
}

// announce publishes and retains a message of the broker's own.
func (b *Broker) announce(topic string, payload []byte) {
	m := newMessage(topic, payload, 0, true, &packets.Properties{}, time.Now())
	m.own = true
	_, _ = b.publish(m) // what the broker says itself is not refused
}
