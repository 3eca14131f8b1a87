package broker

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// nowhere is the topic of publishes that were refused.
const nowhere = "-"

// readPublish decides whether a PUBLISH is allowed. What is refused loses its topic and its payload here; mochi only gets
// to acknowledge it.
func (h *hook) readPublish(c *conn, cl *mqtt.Client, pk packets.Packet) packets.Packet {
	r := &c.request
	h.broker.journal.published.Add(1)
	h.broker.throttle(c, len(pk.TopicName)+len(pk.Payload))
	h.waitForNode(c, pk.TopicName)
	h.broker.watchPublish(c, pk.TopicName, pk.Payload, pk.FixedHeader.Qos, pk.FixedHeader.Retain)
	if reason := c.grants().mayPublish(pk.TopicName, pk.FixedHeader.Qos, pk.FixedHeader.Retain); reason != "" {
		h.broker.denied(reason, c, pk.TopicName)
		r.denied = reason
		r.answered = cl.Properties.ProtocolVersion == 5 && pk.FixedHeader.Qos > 0
		pk.TopicName, pk.Payload, pk.FixedHeader.Retain = nowhere, nil, false
		pk.Properties = packets.Properties{}
	}
	if pk.FixedHeader.Qos == 1 {
		// mochi keeps the identifiers of clients and its own in one table and would forget a message of its own that
		// has the same. It counts upwards, so a free identifier is found from above.
		r.ackID, r.innerID = pk.PacketID, freeID(cl)
		pk.PacketID = r.innerID
	}
	return pk
}

// What the node may have been sent and not have acknowledged before those who publish to it wait: less than the limits
// that drop messages, of the broker and of the agent, and enough for the agent to share its commits.
const (
	nodeWindow      = 512
	nodeWindowBytes = 2 << 20
	// nodePatience is how long a publisher waits for a node that is stuck.
	nodePatience = time.Second
)

// waitForNode holds a client up that publishes what the node reads while the node has enough to do. Every connection
// waits for itself, so a flood is slowed down at its source, and the single messages of others are neither dropped for
// want of room nor queued behind all of it.
func (h *hook) waitForNode(c *conn, topic string) {
	list := h.broker.sessions.node.Load()
	if c.listener == nil || list == nil {
		return
	}
	for _, n := range *list {
		if cl := n.client.Load(); cl != nil && !n.hasRoom(cl) && reads(cl, topic) {
			n.awaitRoom(cl)
		}
	}
}

func (c *conn) hasRoom(cl *mqtt.Client) bool {
	if cl.State.Inflight.Len() >= nodeWindow {
		return false
	}
	if c.inflightBytes.Load() >= nodeWindowBytes {
		c.inflightBytes.Store(inflightBytes(cl))
	}
	return c.inflightBytes.Load() < nodeWindowBytes
}

func reads(cl *mqtt.Client, topic string) bool {
	for filter := range cl.State.Subscriptions.GetAll() {
		if covers(unshared(filter), topic) {
			return true
		}
	}
	return false
}

func (c *conn) awaitRoom(cl *mqtt.Client) {
	o := &c.out
	end := time.Now().Add(nodePatience)
	timer := time.AfterFunc(nodePatience, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.changed.Broadcast()
	})
	defer timer.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed && !c.hasRoom(cl) && time.Now().Before(end) {
		o.changed.Wait()
	}
}

func freeID(cl *mqtt.Client) uint16 {
	for id := uint16(math.MaxUint16); id > 0; id-- {
		if _, taken := cl.State.Inflight.Get(id); !taken {
			return id
		}
	}
	return math.MaxUint16
}

// OnACLCheck is asked when a client publishes, when it subscribes, and for every single delivery to it.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	c := connOf(cl)
	switch {
	case c == nil:
		return false
	case write:
		// Without an answer that could say no, mochi would close the connection: OnPublish drops such a publish.
		return !c.request.answered
	case !c.grants().mayReceive(topic):
		h.broker.withheld(c, topic)
		return false
	case !h.roomInflight(c, cl):
		h.broker.denied(ReasonQueueFull, c, topic)
		return false
	}
	return true
}

// OnPublish drops what readPublish refused; mochi acknowledges it.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	if c == nil || c.request.denied != "" || h.broker.policy.Load().denied[c.identity()] { // denied since readPublish
		return pk, packets.CodeSuccessIgnore
	}
	return pk, nil
}

// OnPublishDropped is told of a message for which a client that reads too slowly had no room.
func (h *hook) OnPublishDropped(cl *mqtt.Client, pk packets.Packet) {
	if c := connOf(cl); c != nil {
		h.broker.denied(ReasonQueueFull, c, pk.TopicName)
	}
}

// OnQosPublish is told of every message that went into a session's inflight store, and of those sent again.
//
// mochi orders the store by the second of arrival, and only by 16 bits of it: messages that waited for a client would
// come in any order. So the second is replaced by a number that counts up; rank makes it fit into 16 bits.
func (h *hook) OnQosPublish(cl *mqtt.Client, pk packets.Packet, _ int64, _ int) {
	c := connOf(cl)
	if c == nil || pk.FixedHeader.Type != packets.Publish || pk.FixedHeader.Dup {
		return
	}
	c.inflightBytes.Add(int64(len(pk.Payload) + len(pk.TopicName)))
	pk.Created = c.arrivals.Add(1)
	cl.State.Inflight.Set(pk)
}

// rank numbers the stored messages from 1 in the order of their arrival, and returns how many there are.
func rank(cl *mqtt.Client) int64 {
	stored := cl.State.Inflight.GetAll(false)
	slices.SortFunc(stored, func(a, b packets.Packet) int { return cmp.Compare(a.Created, b.Created) })
	for i, pk := range stored {
		pk.Created = int64(i + 1)
		cl.State.Inflight.Set(pk)
	}
	return int64(len(stored))
}

// recountInterval is how long a full session stays full before its messages are counted again.
const recountInterval = 100 * time.Millisecond

// roomInflight reports whether a session has room for another message. The bytes are counted upwards only, because mochi
// does not say what an acknowledgement frees; when they reach the limit, they are counted anew.
func (h *hook) roomInflight(c *conn, cl *mqtt.Client) bool {
	limit := int64(h.broker.limits.MaxInflightBytes)
	if c.inflightBytes.Load() < limit {
		return true
	}
	now := time.Now().UnixNano()
	if now < c.fullUntil.Load() {
		return false
	}
	n := inflightBytes(cl)
	c.inflightBytes.Store(n)
	if n >= limit {
		c.fullUntil.Store(now + int64(recountInterval))
	}
	return n < limit
}

func inflightBytes(cl *mqtt.Client) int64 {
	n := 0
	for _, pk := range cl.State.Inflight.GetAll(false) {
		n += len(pk.Payload) + len(pk.TopicName)
	}
	return int64(n)
}

// granted stands in request.codes for a filter that mochi is to decide on.
const granted byte = 0xff

// OnSubscribe takes the filters out that are not allowed.
func (h *hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := connOf(cl)
	allowed := pk.Filters[:0:0]
	added := 0
	codes := make([]byte, 0, len(pk.Filters))
	for _, sub := range pk.Filters {
		_, exists := cl.State.Subscriptions.Get(sub.Filter)
		decision := c.grants().subscription(sub.Filter)
		sub.Qos = min(sub.Qos, decision.MaxQoS)
		code := granted
		switch {
		case decision.Reason != "":
			h.broker.denied(ReasonSubscribe, c, sub.Filter)
			code = packets.ErrNotAuthorized.Code
		case !exists && cl.State.Subscriptions.Len()+added >= h.broker.limits.MaxSubscriptions:
			h.broker.denied(ReasonTooManySubscriptions, c, sub.Filter)
			code = packets.ErrQuotaExceeded.Code
		default:
			allowed = append(allowed, sub)
			if !exists {
				added++
			}
		}
		if code != granted && cl.Properties.ProtocolVersion < 5 {
			code = packets.ErrUnspecifiedError.Code // 0x80, the only failure that MQTT 3.1.1 knows
		}
		codes = append(codes, code)
	}
	c.request.codes = codes
	pk.Filters = allowed
	return pk
}

// OnSubscribed runs when the subscriptions are in place.
func (h *hook) OnSubscribed(cl *mqtt.Client, _ packets.Packet, _ []byte) {
	h.broker.endSubscriptions(cl) // the policy may have changed since OnSubscribe
}

// endSubscriptions ends those that the policy does not allow, lowers the quality of service of others to what it allows,
// and drops what waits for an acknowledgement and may not be received any more.
func (b *Broker) endSubscriptions(cl *mqtt.Client) {
	c := connOf(cl)
	if c == nil {
		return
	}
	g := c.grants()
	for filter, sub := range cl.State.Subscriptions.GetAll() {
		if d := g.subscription(filter); d.Reason == "" {
			if sub.Qos > d.MaxQoS {
				sub.Qos = d.MaxQoS
				b.server.Topics.Subscribe(cl.ID, sub)
				cl.State.Subscriptions.Add(filter, sub)
			}
			continue
		}
		if b.server.Topics.Unsubscribe(filter, cl.ID) {
			atomic.AddInt64(&b.server.Info.Subscriptions, -1)
		}
		cl.State.Subscriptions.Delete(filter)
		b.denied(ReasonDelivery, c, filter)
	}
	for _, pk := range cl.State.Inflight.GetAll(false) {
		if pk.FixedHeader.Type == packets.Publish && !g.mayReceive(pk.TopicName) && cl.State.Inflight.Delete(pk.PacketID) {
			atomic.AddInt64(&b.server.Info.Inflight, -1)
		}
	}
}

// OnPacketEncode sees every packet before it is written to the client, outside mochi's locks: here is the place to wait.
func (h *hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := connOf(cl)
	if c == nil {
		return pk
	}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		h.encodePublish(c, pk)
		return pk
	case packets.Connack:
		h.encodeConnack(cl, &pk)
		return pk
	case packets.Disconnect:
		if cl.Properties.ProtocolVersion < 5 {
			pk.FixedHeader.Type = 0 // no server sends it in MQTT 3.1.1; mochi refuses to encode type 0
		}
		return pk
	case packets.Puback:
		if pk.PacketID == c.request.innerID {
			pk.PacketID = c.request.ackID
		}
		tellRefusal(c, &pk)
	case packets.Pubrec:
		tellRefusal(c, &pk)
	case packets.Suback:
		pk.PacketID = c.request.ackID
		pk.ReasonCodes = merge(c.request.codes, pk.ReasonCodes)
	case packets.Unsuback:
		pk.PacketID = c.request.ackID
	}
	c.waitRoom(false)
	return pk
}

func (h *hook) encodePublish(c *conn, pk packets.Packet) {
	h.broker.journal.delivered.Add(1)
	acknowledged := pk.FixedHeader.Qos > 0
	if pk.FixedHeader.Dup {
		// Sent again as the session resumes, before the client's acknowledgements are read, and before anything new.
		c.waitRoom(false)
	} else {
		c.waitAdmitted()
		c.waitRoom(acknowledged)
	}
	if acknowledged {
		c.sentUnacknowledged()
	}
}

func (h *hook) encodeConnack(cl *mqtt.Client, pk *packets.Packet) {
	pk.Properties.MaximumPacketSize = clamp[uint32](h.broker.limits.MaxPacketBytes, math.MaxUint32)
	if cl.Properties.Props.SessionExpiryIntervalFlag {
		pk.Properties.SessionExpiryInterval = cl.Properties.Props.SessionExpiryInterval
		pk.Properties.SessionExpiryIntervalFlag = true
	}
}

// tellRefusal names the reason in the acknowledgement of a refused publish.
func tellRefusal(c *conn, pk *packets.Packet) {
	if c.request.answered {
		pk.Properties.ReasonString = string(c.request.denied)
	}
}

// merge fills mochi's codes into the places left for them.
func merge(codes, decided []byte) []byte {
	merged := slices.Clone(codes)
	for i, code := range merged {
		if code == granted && len(decided) > 0 {
			merged[i], decided = decided[0], decided[1:]
		}
	}
	return merged
}
