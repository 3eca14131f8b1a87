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
		mqtt.OnPacketEncode:
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
	if pk.Connect.WillFlag {
		c.will = h.willOf(c, &pk)
	}
	if r := h.judgeConnect(c, pk); r != nil {
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

func (h *hook) judgeConnect(c *conn, pk packets.Packet) *refusal {
	id := pk.Connect.ClientIdentifier
	username := string(pk.Connect.Username)
	p := c.peer.Load()
	switch {
	case p.err != nil:
		return &refusal{ReasonIdentity, packets.ErrNotAuthorized, p.err.Error()}
	case pk.Properties.AuthenticationMethod != "":
		return &refusal{ReasonAuthMethod, packets.ErrBadAuthenticationMethod, ""}
	case len(id) > h.broker.limits.Load().MaxClientIDBytes:
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
		c.noteAssigned(c.clientID)
	}
	if c.will != nil {
		m := c.will.message
		if reason := h.broker.policy.Load().grants(c.identity(), c.clientID).mayPublish(m.topic, m.qos, m.retain); reason != "" {
			return &refusal{ReasonWill, packets.ErrNotAuthorized, string(reason) + ": " + m.topic}
		}
	}
	return nil
}

// willOf keeps the will that a CONNECT names: mochi forgets half of its properties.
func (h *hook) willOf(c *conn, pk *packets.Packet) *will {
	params := &pk.Connect
	payload := params.WillPayload
	if c.emptyWill {
		payload = nil
	}
	m := newMessage(params.WillTopic, payload, params.WillQos, params.WillRetain, &params.WillProperties, time.Now())
	m.own, m.expires = c.listener == nil, 0
	return &will{
		message:  m,
		delay:    time.Duration(params.WillProperties.WillDelayInterval) * time.Second,
		lifetime: params.WillProperties.MessageExpiryInterval,
	}
}

// bound sets the limits of a session.
func (h *hook) bound(c *conn, cl *mqtt.Client) {
	limit := clamp[uint16](c.limits.MaxKeepAlive/time.Second, math.MaxUint16)
	if k := cl.State.Keepalive; k == 0 || k > limit {
		cl.State.Keepalive = limit
		cl.State.ServerKeepalive = true
	}
	props := &cl.Properties.Props
	if props.SessionExpiryInterval > h.broker.sessionExpirySeconds() {
		props.SessionExpiryInterval = h.broker.sessionExpirySeconds()
	}
	c.maxPacket = props.MaximumPacketSize
	c.out.mostAliases = min(props.TopicAliasMaximum, clamp[uint16](c.limits.MaxTopicAliases, math.MaxUint16))
	cl.Properties.Will = mqtt.Will{} // it is the session's
}

// OnConnectAuthenticate lets in what OnConnect has let through.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	c := connOf(cl)
	return c != nil && c.client.Load() == cl
}

// OnSessionEstablish runs right before the CONNACK. mochi looks for a session of its own then, and never finds one.
func (h *hook) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	c := connOf(cl)
	var s *session
	s, c.present = h.broker.acquire(c, cl.ID, cl.Properties.Clean)
	s.setWill(c.will)
	h.broker.conns.settle(c)
}

// OnSessionEstablished runs when the CONNACK is out.
func (h *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	c := connOf(cl)
	c.admit()
	s := c.session.Load()
	h.broker.endSubscriptions(s) // the policy may have changed while the session had no connection
	s.attach(c, cl.Properties.ProtocolVersion, receiveMaximum(cl), h.broker.keepFor(cl))
	if h.broker.policy.Load().denied[c.identity()] {
		c.kick(ReasonRevoked, packets.ErrNotAuthorized) // since OnConnect
	}
	h.broker.connected(c, cl.ID)
	if p := c.peer.Load(); p.login != nil && p.login.Watch != nil {
		go h.broker.watch(c, p.login)
	}
}

// receiveMaximum is how many QoS 1 and 2 messages the client takes at a time (section 3.1.2.11.3).
func receiveMaximum(cl *mqtt.Client) uint16 {
	if n := cl.Properties.Props.ReceiveMaximum; n > 0 {
		return n
	}
	return math.MaxUint16
}

// done is a packet on which mochi does nothing: it is not waiting for an acknowledgement.
func done() packets.Packet {
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}}
}

// OnPacketRead sees every packet of a client before mochi acts on it. Sessions and messages are handled here.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	h.broker.journal.traffic.packetsIn.Add(1)
	if pk.FixedHeader.Type == packets.Connect {
		return h.readConnect(c, cl, pk)
	}
	s := c.session.Load()
	c.waitRoom()
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if s.tooManyReceived(&pk, c.limits.ReceiveMaximum) {
			c.kick(ReasonReceiveMaximum, packets.ErrReceiveMaximum)
			return pk, packets.ErrRejectPacket
		}
		if !c.resolveAlias(&pk) {
			c.kick(ReasonMalformed, packets.ErrTopicAliasInvalid)
			return pk, packets.ErrRejectPacket
		}
		h.readPublish(c, s, &pk)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		h.readAck(c, s, &pk)
	case packets.Subscribe:
		h.readSubscribe(c, s, &pk)
	case packets.Unsubscribe:
		h.readUnsubscribe(c, s, &pk)
	case packets.Disconnect:
		h.readDisconnect(c, s, cl, &pk)
		return pk, nil
	default:
		return pk, nil
	}
	return done(), nil
}

// readDisconnect notes that a client goes in peace: then there is no will (section 3.14.4).
func (h *hook) readDisconnect(c *conn, s *session, cl *mqtt.Client, pk *packets.Packet) {
	c.goodbye = true
	pk.ReasonCode = c.in.DisconnectReason() // mochi overlooks it where no properties follow
	fromNothing := cl.Properties.Props.SessionExpiryInterval == 0 && pk.Properties.SessionExpiryInterval > 0
	if pk.ReasonCode == packets.CodeDisconnect.Code && !fromNothing { // mochi refuses that
		s.takeWill()
	}
}

func (h *hook) readConnect(c *conn, cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c.noteHello(&pk)
	if c.in.Version() < version5 && !pk.Connect.Clean && pk.Connect.ClientIdentifier == "" {
		// MQTT 3.1.1 section 3.1.3.1; mochi answers with a code that 3.1.1 does not have.
		c.end(ReasonClientID, "missing")
		_ = h.broker.server.SendConnack(cl, packets.ErrClientIdentifierNotValid, false, nil) // the connection ends anyway
		return pk, packets.ErrRejectPacket
	}
	c.password = slices.Clone(pk.Connect.Password) // mochi's packets are copied around
	clear(pk.Connect.Password)
	pk.Connect.Password, pk.Connect.PasswordFlag = nil, false
	if pk.Connect.WillFlag && len(pk.Connect.WillPayload) == 0 {
		c.emptyWill = true // legal, but mochi refuses it
		pk.Connect.WillPayload = []byte{0}
	}
	return pk, nil
}

// OnPacketEncode sees the packets that mochi writes itself: CONNACK, PINGRESP, DISCONNECT.
func (h *hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := connOf(cl)
	switch {
	case c == nil:
	case pk.FixedHeader.Type == packets.Connack:
		h.encodeConnack(c, cl, &pk)
	case pk.FixedHeader.Type == packets.Disconnect && cl.Properties.ProtocolVersion < version5:
		pk.FixedHeader.Type = 0 // no server sends it in MQTT 3.1.1; mochi refuses to encode type 0
	}
	return pk
}

func (h *hook) encodeConnack(c *conn, cl *mqtt.Client, pk *packets.Packet) {
	pk.SessionPresent = c.present && pk.ReasonCode == 0
	pk.Properties.TopicAliasMaximum = clamp[uint16](c.limits.MaxTopicAliases, math.MaxUint16)
	pk.Properties.MaximumPacketSize = clamp[uint32](c.limits.MaxPacketBytes, math.MaxUint32)
	pk.Properties.ReceiveMaximum = clamp[uint16](c.limits.ReceiveMaximum, math.MaxUint16)
	if cl.Properties.Props.SessionExpiryIntervalFlag {
		pk.Properties.SessionExpiryInterval = cl.Properties.Props.SessionExpiryInterval
		pk.Properties.SessionExpiryIntervalFlag = true
	}
}
