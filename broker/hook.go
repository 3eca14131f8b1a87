package broker

import (
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hook is the only hook: mochi allows whatever any of several hooks allows.
type hook struct {
	mqtt.HookBase
	broker *Broker
}

// ID names the hook.
func (h *hook) ID() string { return "pinseal" }

// Provides lists the events that are handled.
func (h *hook) Provides(event byte) bool {
	switch event {
	case mqtt.OnPacketRead, mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished,
		mqtt.OnACLCheck, mqtt.OnPublish, mqtt.OnSubscribe, mqtt.OnSubscribed, mqtt.OnPacketEncode, mqtt.OnWill,
		mqtt.OnPublishDropped, mqtt.OnQosPublish:
		return true
	}
	return false
}

// connOf returns our side of a client's connection. All clients come through serve.
func connOf(cl *mqtt.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

// refusal is a CONNECT that is not accepted.
type refusal struct {
	reason Reason
	code   packets.Code
	detail string
}

// OnConnect decides whether the client may connect, and names its session. It runs before mochi looks for one.
func (h *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	c := connOf(cl)
	if c == nil {
		return packets.ErrNotAuthorized
	}
	h.restoreWill(c, cl)
	if r := h.judgeConnect(c, cl, pk); r != nil {
		c.end(r.reason, r.detail)
		_ = h.broker.server.SendConnack(cl, r.codeFor(cl), false, nil) // the connection ends anyway
		return r.code
	}
	if pk.Connect.ClientIdentifier == "" {
		cl.Properties.Props.AssignedClientID = c.clientID
	}
	cl.ID = c.identity() + ":" + c.clientID
	h.bound(c, cl)
	c.client.Store(cl)
	return nil
}

func (h *hook) assignedID(c *conn) string {
	if c.listener != nil && c.listener.ClientIDIsIdentity {
		return c.identity()
	}
	return rand.Text()
}

// codeFor translates what MQTT 3.1.1 has no code for to "not authorized".
func (r *refusal) codeFor(cl *mqtt.Client) packets.Code {
	if cl.Properties.ProtocolVersion < 5 && r.code != packets.ErrClientIdentifierNotValid && r.code != packets.ErrServerUnavailable {
		return packets.ErrBadUsernameOrPassword // which mochi sends as 5
	}
	return r.code
}

func (h *hook) judgeConnect(c *conn, cl *mqtt.Client, pk packets.Packet) *refusal {
	id := pk.Connect.ClientIdentifier
	username := string(pk.Connect.Username)
	p := c.peer.Load()
	switch {
	case p.err != nil:
		return &refusal{ReasonIdentity, packets.ErrNotAuthorized, p.err.Error()}
	case pk.Properties.AuthenticationMethod != "":
		return &refusal{ReasonAuthMethod, packets.ErrBadAuthenticationMethod, ""}
	case len(id) > h.broker.limits.MaxClientIDBytes:
		return &refusal{ReasonClientID, packets.ErrClientIdentifierNotValid, "too long"}
	case p.named && username != "" && username != p.identity:
		return &refusal{ReasonUsername, packets.ErrBadUsernameOrPassword, fmt.Sprintf("user name %.64q", username)}
	case !p.named:
		if r := h.logIn(c, pk); r != nil {
			return r
		}
	}
	if h.broker.policy.Load().denied[c.identity()] {
		return &refusal{ReasonRevoked, packets.ErrNotAuthorized, c.identity()}
	}
	if id != "" && c.listener != nil && c.listener.ClientIDIsIdentity && id != c.identity() {
		return &refusal{ReasonClientID, packets.ErrClientIdentifierNotValid, fmt.Sprintf("client id %.64q", id)}
	}
	if c.clientID = id; id == "" {
		c.clientID = h.assignedID(c)
	}
	if will := cl.Properties.Will; will.Flag != 0 {
		if reason := c.grants().mayPublish(will.TopicName, will.Qos, will.Retain); reason != "" {
			return &refusal{ReasonWill, packets.ErrNotAuthorized, string(reason) + ": " + will.TopicName}
		}
	}
	return nil
}

// bound sets the limits of a session.
func (h *hook) bound(c *conn, cl *mqtt.Client) {
	limit := clamp[uint16](h.broker.limits.MaxKeepAlive/time.Second, math.MaxUint16)
	if k := cl.State.Keepalive; k == 0 || k > limit {
		cl.State.Keepalive = limit
		cl.State.ServerKeepalive = true
	}
	props := &cl.Properties.Props
	if props.SessionExpiryInterval > h.broker.sessionExpirySeconds() {
		props.SessionExpiryInterval = h.broker.sessionExpirySeconds()
	}
	// Without this, the wills of sessions long forgotten could be piled up (MQTT 5.0 section 3.1.3.2.2).
	cl.Properties.Will.WillDelayInterval = min(cl.Properties.Will.WillDelayInterval, props.SessionExpiryInterval)
	c.willTopic, c.willQoS, c.willRetain = cl.Properties.Will.TopicName, cl.Properties.Will.Qos, cl.Properties.Will.Retain
	// A topic alias is lost when mochi drops the message that introduced it.
	props.TopicAliasMaximum = 0
	// mochi's flow control deadlocks on its own lock, and stalls for good: waitRoom does it instead.
	c.out.window = int(props.ReceiveMaximum)
	props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
}

// OnConnectAuthenticate lets in what OnConnect has let through.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	c := connOf(cl)
	return c != nil && c.client.Load() == cl
}

// OnSessionEstablish runs right before mochi looks for a session of the same name.
func (h *hook) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	c := connOf(cl)
	h.broker.sessions.acquire(c, cl.ID)
	h.broker.conns.settle(c)
	if stored, ok := h.broker.server.Clients.Get(cl.ID); ok {
		c.arrivals.Store(rank(stored))
	}
}

// OnSessionEstablished runs when the CONNACK is out.
func (h *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	c := connOf(cl)
	c.admit()
	c.inflightBytes.Store(inflightBytes(cl))
	h.broker.endSubscriptions(cl) // the policy may have changed while the session had no connection
	if h.broker.policy.Load().denied[c.identity()] {
		c.kick(ReasonRevoked, packets.ErrNotAuthorized) // since OnConnect
	}
	h.broker.connected(c, cl.ID)
	if p := c.peer.Load(); p.login != nil && p.login.Watch != nil {
		go h.broker.watch(c, p.login)
	}
}

// OnPacketRead sees every packet of a client before mochi acts on it.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	c.request = request{emptyWill: c.request.emptyWill}
	switch pk.FixedHeader.Type {
	case packets.Connect:
		return h.readConnect(c, cl, pk)
	case packets.Publish:
		return h.readPublish(c, cl, pk), nil
	case packets.Subscribe, packets.Unsubscribe:
		// mochi mixes up the identifiers of clients with its own and would refuse this one if it has a message under
		// way that has the same. 0 never collides; OnPacketEncode puts the client's back.
		c.request.ackID = pk.PacketID
		pk.PacketID, pk.FixedHeader.Qos = 0, 0
	case packets.Puback, packets.Pubcomp:
		c.acknowledged()
	case packets.Pubrec:
		if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
			c.acknowledged()
		}
	case packets.Disconnect:
		pk.ReasonCode = c.in.DisconnectReason() // mochi overlooks it where no properties follow
	}
	return pk, nil
}

func (h *hook) readConnect(c *conn, cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if c.in.Version() < 5 && !pk.Connect.Clean && pk.Connect.ClientIdentifier == "" {
		// MQTT 3.1.1 section 3.1.3.1; mochi answers with a code that 3.1.1 does not have.
		c.end(ReasonClientID, "missing")
		_ = h.broker.server.SendConnack(cl, packets.ErrClientIdentifierNotValid, false, nil) // the connection ends anyway
		return pk, packets.ErrRejectPacket
	}
	c.password = slices.Clone(pk.Connect.Password) // mochi's packets are copied around
	clear(pk.Connect.Password)
	pk.Connect.Password, pk.Connect.PasswordFlag = nil, false
	if pk.Connect.WillFlag && len(pk.Connect.WillPayload) == 0 {
		c.request.emptyWill = true // legal, but mochi refuses it
		pk.Connect.WillPayload = []byte{0}
	}
	return pk, nil
}

func (h *hook) restoreWill(c *conn, cl *mqtt.Client) {
	if c.request.emptyWill {
		cl.Properties.Will.Payload = nil
	}
}

// OnWill judges a will again when it is due. mochi publishes it past every other check.
func (h *hook) OnWill(cl *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	c := connOf(cl)
	if reason := c.grants().mayPublish(will.TopicName, will.Qos, will.Retain); reason != "" {
		h.broker.denied(ReasonWill, c, will.TopicName)
		return mqtt.Will{}, nil // without a topic it reaches nobody
	}
	return will, nil
}
