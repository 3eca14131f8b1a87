package broker

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"pinseal/broker/internal/frame"

	"github.com/mochi-mqtt/server/v2/packets"
)

// refusal is a CONNECT that is not accepted.
type refusal struct {
	reason Reason
	code   packets.Code
	detail string
}

// connect reads the CONNECT, judges it, finds its session and answers. It reports whether the client is let in.
func (b *Broker) connect(c *conn) bool {
	c.in = frame.NewReader(c, c.limits.frame())
	c.in.Hold = c.mayHold
	p, err := c.next()
	if err != nil {
		return false
	}
	pk := &packets.Packet{}
	if err := decode(pk, 0, p.First(), slices.Clone(p.Body)); err != nil {
		c.end(ReasonMalformed, err.Error())
		return false
	}
	clear(p.Whole) // a password may be in it
	defer clear(pk.Connect.Password)
	pk.Connect.ClientIdentifier = strings.Clone(pk.Connect.ClientIdentifier) // it outlives the packet, which may be large
	c.noteConnect(pk)
	if r := b.judgeConnect(c, pk); r != nil {
		c.end(r.reason, r.detail)
		_ = c.connack(r.codeFor(c.version), &packets.Packet{}) // the connection ends anyway
		return false
	}
	return b.establish(c, pk)
}

// noteConnect notes what a CONNECT says, within the limits.
func (c *conn) noteConnect(pk *packets.Packet) {
	said := &pk.Properties
	c.noteHello(pk)
	c.version, c.clean = pk.ProtocolVersion, pk.Connect.Clean
	c.expiry = min(said.SessionExpiryInterval, c.broker.sessionExpirySeconds())
	c.terse = said.RequestProblemInfoFlag && said.RequestProblemInfo == 0
	c.maxPacket = clamp[int32](int64(said.MaximumPacketSize), math.MaxInt32)
	if c.receiveMaximum = said.ReceiveMaximum; c.receiveMaximum == 0 {
		c.receiveMaximum = math.MaxUint16 // section 3.1.2.11.3
	}
	c.keepAlive = pk.Connect.Keepalive
	if limit := clamp[uint16](c.limits.MaxKeepAlive/time.Second, math.MaxUint16); c.keepAlive == 0 || c.keepAlive > limit {
		c.keepAlive = limit
	}
	c.out.mostAliases = min(said.TopicAliasMaximum, clamp[uint16](c.limits.MaxTopicAliases, math.MaxUint16))
	if pk.Connect.WillFlag {
		c.will = willOf(c, pk)
	}
}

// willOf is the will that a CONNECT names.
func willOf(c *conn, pk *packets.Packet) *will {
	params := &pk.Connect
	m := newMessage(strings.Clone(params.WillTopic), slices.Clone(params.WillPayload), params.WillQos, params.WillRetain, &params.WillProperties, time.Now())
	m.own, m.expires = c.listener == nil, 0
	return &will{
		message:  m,
		delay:    time.Duration(params.WillProperties.WillDelayInterval) * time.Second,
		lifetime: params.WillProperties.MessageExpiryInterval,
	}
}

// judgeConnect says why a client is not let in, nil if it is.
func (b *Broker) judgeConnect(c *conn, pk *packets.Packet) *refusal {
	id := pk.Connect.ClientIdentifier
	username := string(pk.Connect.Username)
	p := c.peer.Load()
	switch {
	case c.version < version5 && !c.clean && id == "": // MQTT 3.1.1 section 3.1.3.1
		return &refusal{ReasonClientID, packets.ErrClientIdentifierNotValid, "missing"}
	case p.err != nil:
		return &refusal{ReasonIdentity, packets.ErrNotAuthorized, p.err.Error()}
	case pk.Properties.AuthenticationMethod != "":
		return &refusal{ReasonAuthMethod, packets.ErrBadAuthenticationMethod, ""}
	case len(id) > b.limits.Load().MaxClientIDBytes:
		return &refusal{ReasonClientID, packets.ErrClientIdentifierNotValid, "too long"}
	case p.named && username != "" && username != p.identity:
		return &refusal{ReasonUsername, packets.ErrBadUsernameOrPassword, fmt.Sprintf("user name %.64q", username)}
	case !p.named:
		if r := b.logIn(c, pk); r != nil {
			return r
		}
	}
	if b.policy.Load().denied[c.identity()] {
		return &refusal{ReasonRevoked, packets.ErrNotAuthorized, c.identity()}
	}
	if id != "" && c.listener != nil && c.listener.ClientIDIsIdentity && id != c.identity() {
		return &refusal{ReasonClientID, packets.ErrClientIdentifierNotValid, fmt.Sprintf("client id %.64q", id)}
	}
	if c.clientID = id; id == "" {
		c.clientID = c.assignedID()
		c.noteAssigned(c.clientID)
	}
	return b.judgeWill(c)
}

func (b *Broker) judgeWill(c *conn) *refusal {
	if c.will == nil {
		return nil
	}
	m := c.will.message
	if reason := b.policy.Load().grants(c.identity(), c.clientID).mayPublish(m.topic, m.qos, m.retain); reason != "" {
		return &refusal{ReasonWill, packets.ErrNotAuthorized, string(reason) + ": " + m.topic}
	}
	return nil
}

func (c *conn) assignedID() string {
	if c.listener != nil && c.listener.ClientIDIsIdentity {
		return c.identity()
	}
	return rand.Text()
}

// codeFor translates what MQTT 3.1.1 has no code for to "not authorized".
func (r *refusal) codeFor(version byte) packets.Code {
	if version == version5 {
		return r.code
	}
	switch r.code {
	case packets.ErrClientIdentifierNotValid, packets.ErrServerUnavailable:
		return packets.V5CodesToV3[r.code]
	}
	return packets.Err3NotAuthorized
}

// establish gives the client its session and answers its CONNECT.
func (b *Broker) establish(c *conn, pk *packets.Packet) bool {
	s, present := b.acquire(c, c.identity()+":"+c.clientID, c.clean)
	s.setWill(c.will)
	b.conns.settle(c)
	answer := &packets.Packet{SessionPresent: present}
	props := &answer.Properties
	if pk.Connect.ClientIdentifier == "" {
		props.AssignedClientID = c.clientID
	}
	props.ServerKeepAlive, props.ServerKeepAliveFlag = c.keepAlive, c.keepAlive != pk.Connect.Keepalive
	props.SessionExpiryInterval, props.SessionExpiryIntervalFlag = c.expiry, pk.Properties.SessionExpiryIntervalFlag
	if c.connack(packets.CodeSuccess, answer) != nil { // it is larger than what the client takes
		s.takeWill()
		return false
	}
	c.admitted.Store(true)
	b.endSubscriptions(s) // the policy may have changed while the session had no connection
	s.attach(c, c.version, c.receiveMaximum, b.keepFor(c))
	if b.policy.Load().denied[c.identity()] {
		c.kick(ReasonRevoked, packets.ErrNotAuthorized) // since it was judged
	}
	b.connected(c, s.id)
	if p := c.peer.Load(); p.login != nil && p.login.Watch != nil {
		go b.watch(c, p.login)
	}
	return true
}

// connack answers the CONNECT. What of the answer is the same for all need not be set.
func (c *conn) connack(code packets.Code, pk *packets.Packet) error {
	props := &pk.Properties
	props.TopicAliasMaximum = clamp[uint16](c.limits.MaxTopicAliases, math.MaxUint16)
	props.MaximumPacketSize = clamp[uint32](c.limits.MaxPacketBytes, math.MaxUint32)
	props.ReceiveMaximum = clamp[uint16](c.limits.ReceiveMaximum, math.MaxUint16)
	pk.FixedHeader.Type = packets.Connack
	return c.encode(pk, code, (*packets.Packet).ConnackEncode)
}

// sendDisconnect says why the connection ends, to those whose MQTT has words for it.
func (c *conn) sendDisconnect(code packets.Code) {
	if c.version != version5 {
		return
	}
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}}
	_ = c.encode(pk, code, (*packets.Packet).DisconnectEncode) // the connection ends anyway
}

// encode writes a packet with a reason, unless it is larger than what the client takes (section 3.1.2.11.4).
func (c *conn) encode(pk *packets.Packet, code packets.Code, to func(*packets.Packet, *bytes.Buffer) error) error {
	pk.ProtocolVersion, pk.ReasonCode = c.version, code.Code
	if code.Code >= packets.ErrUnspecifiedError.Code {
		pk.Properties.ReasonString = code.Reason
	}
	pk.Mods = packets.Mods{MaxSize: uint32(c.maxPacket), DisallowProblemInfo: c.terse} //nolint:gosec // not negative
	var b bytes.Buffer
	if err := to(pk, &b); err != nil {
		return err
	}
	if c.maxPacket > 0 && b.Len() > int(c.maxPacket) {
		return packets.ErrPacketTooLarge
	}
	_, err := c.Write(b.Bytes())
	return err
}
