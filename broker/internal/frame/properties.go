package frame

// where is a set of places that properties can stand in.
type where uint16

const (
	inConnect where = 1 << iota
	inWill
	inPublish
	inAck
	inSubscribe
	inUnsubscribe
	inDisconnect
	anywhere where = 1<<iota - 1
)

// Identifiers of the properties a client may send (MQTT 5.0 section 2.2.2.2).
const (
	propPayloadFormat      = 0x01
	propMessageExpiry      = 0x02
	propContentType        = 0x03
	propResponseTopic      = 0x08
	propCorrelationData    = 0x09
	propSubscriptionID     = 0x0B
	propSessionExpiry      = 0x11
	propAuthMethod         = 0x15
	propAuthData           = 0x16
	propRequestProblemInfo = 0x17
	propWillDelay          = 0x18
	propRequestResponse    = 0x19
	propReasonString       = 0x1F
	propReceiveMaximum     = 0x21
	propTopicAliasMaximum  = 0x22
	propTopicAlias         = 0x23
	propUser               = 0x26
	propMaximumPacketSize  = 0x27
)

// allowedIn tells where a client may send a property; none for those that only servers send.
func allowedIn(id byte) where {
	switch id {
	case propPayloadFormat, propMessageExpiry, propContentType, propResponseTopic, propCorrelationData:
		return inPublish | inWill
	case propSubscriptionID:
		return inSubscribe
	case propSessionExpiry:
		return inConnect | inDisconnect
	case propAuthMethod, propAuthData, propRequestProblemInfo, propRequestResponse, propReceiveMaximum,
		propTopicAliasMaximum, propMaximumPacketSize:
		return inConnect
	case propWillDelay:
		return inWill
	case propReasonString:
		return inAck | inDisconnect
	case propTopicAlias:
		return inPublish
	case propUser:
		return anywhere
	}
	return 0
}

// properties checks a property list, its length included.
func (l *Limits) properties(c *cursor, place where) error {
	n, ok := c.varint()
	if !ok || n > len(c.b) {
		return malformed("length of the properties")
	}
	if n == 0 {
		return nil
	}
	list := cursor{b: c.take(n)}
	var seen uint64
	users := 0
	for len(list.b) > 0 {
		id := list.u8()
		switch {
		case allowedIn(id)&place == 0:
			return protocolError("property unknown, or not in this packet")
		case id == propUser:
			users++
		case seen&(1<<id) != 0:
			return protocolError("property given twice")
		}
		seen |= 1 << id
		if err := l.property(&list, id); err != nil {
			return err
		}
		if list.short {
			return malformed("property cut short")
		}
	}
	c.alias = list.alias
	switch {
	case users > l.UserProperties:
		return &Error{CodeQuotaExceeded, "too many user properties"}
	case seen&(1<<propAuthData) != 0 && seen&(1<<propAuthMethod) == 0:
		return protocolError("authentication data without a method")
	}
	return nil
}

// property checks the value of one property. A value cut short is left to the caller to find.
func (l *Limits) property(c *cursor, id byte) error {
	valid := true
	switch id {
	case propPayloadFormat, propRequestProblemInfo, propRequestResponse:
		valid = c.u8() <= 1
	case propMessageExpiry, propSessionExpiry, propWillDelay:
		c.u32()
	case propContentType, propAuthMethod, propReasonString:
		valid = text(c.bytes())
	case propResponseTopic:
		return l.responseTopic(c)
	case propCorrelationData, propAuthData:
		c.bytes()
	case propSubscriptionID:
		n, ok := c.varint()
		valid = ok && n > 0
	case propReceiveMaximum:
		valid = c.u16() > 0 || c.short
	case propTopicAliasMaximum:
		c.u16()
	case propTopicAlias:
		return l.topicAlias(c)
	case propUser:
		key, value := c.bytes(), c.bytes()
		valid = text(key) && text(value)
	case propMaximumPacketSize:
		valid = c.u32() > 0 || c.short
	}
	if !valid {
		return protocolError("value of a property")
	}
	return nil
}

func (l *Limits) topicAlias(c *cursor) error {
	c.alias = c.u16()
	if !c.short && (c.alias == 0 || int(c.alias) > l.TopicAliases) {
		return &Error{CodeAliasInvalid, "topic alias 0, or higher than was offered"}
	}
	return nil
}

func (l *Limits) responseTopic(c *cursor) error {
	topic := c.bytes()
	if c.short {
		return nil
	}
	return l.topicName(topic)
}
