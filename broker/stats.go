package broker

// Reason says why a connection was refused or ended, or why something a client asked for was denied.
type Reason string

// The fixed list of reasons.
const (
	ReasonTooManyConnections   Reason = "too-many-connections"    // the caps on connections
	ReasonDisplaced            Reason = "displaced"               // the oldest silent connection made room for a new one
	ReasonHandshake            Reason = "handshake"               // TLS failed: no certificate, a foreign one, an expired one
	ReasonTimeout              Reason = "timeout"                 // no CONNECT in time, or silence beyond the keep alive
	ReasonMalformed            Reason = "malformed"               // a packet that the protocol forbids
	ReasonTooLarge             Reason = "packet-too-large"        // a packet above MaxPacketBytes
	ReasonVersion              Reason = "unsupported-version"     // neither MQTT 3.1.1 nor 5.0
	ReasonIdentity             Reason = "bad-identity"            // no usable name in the certificate, or the node's own
	ReasonUsername             Reason = "wrong-username"          // a user name that is not the identity
	ReasonClientID             Reason = "bad-client-id"           // too long, not the identity, or missing
	ReasonAuthMethod           Reason = "bad-authentication"      // MQTT 5 enhanced authentication is not offered
	ReasonWill                 Reason = "will-not-permitted"      // a will that could not have been published
	ReasonPublish              Reason = "publish-not-permitted"   // no rule allows it
	ReasonReserved             Reason = "reserved"                // a topic that only the node may publish to
	ReasonRetained             Reason = "retained"                // a retained message where none is accepted
	ReasonSubscribe            Reason = "subscribe-not-permitted" // no rule allows it
	ReasonTooManySubscriptions Reason = "too-many-subscriptions"  // MaxSubscriptions
	ReasonDelivery             Reason = "delivery-not-permitted"  // a subscription that the policy no longer allows
	ReasonQueueFull            Reason = "queue-full"              // a message a client had no room for
	ReasonSlow                 Reason = "slow"                    // a client that did not read within WriteTimeout
	ReasonCertificate          Reason = "certificate"             // a certificate that is no longer accepted
	ReasonTakenOver            Reason = "taken-over"              // the same client connected again
	ReasonDisconnected         Reason = "disconnected"            // Disconnect was called
	ReasonPanic                Reason = "panic"                   // a defect; the connection was given up
)

// Reasons lists every Reason.
func Reasons() []Reason {
	return []Reason{
		ReasonTooManyConnections, ReasonDisplaced, ReasonHandshake, ReasonTimeout, ReasonMalformed, ReasonTooLarge,
		ReasonVersion, ReasonIdentity, ReasonUsername, ReasonClientID, ReasonAuthMethod, ReasonWill, ReasonPublish,
		ReasonReserved, ReasonRetained, ReasonSubscribe, ReasonTooManySubscriptions, ReasonDelivery, ReasonQueueFull,
		ReasonSlow, ReasonCertificate, ReasonTakenOver, ReasonDisconnected, ReasonPanic,
	}
}

// Stats is what the broker has counted since it was made.
type Stats struct {
	// Connections is the number of network connections now, Pending of those that have not been accepted yet.
	Connections, Pending int
	// Sessions counts the sessions of connected and absent clients now, Subscriptions theirs, Retained the messages.
	Sessions, Subscriptions, Retained int
	// Accepted counts the clients whose CONNECT was accepted.
	Accepted uint64
	// Received and Sent count PUBLISH packets.
	Received, Sent uint64
	// ByReason counts every refusal, denial and forced end.
	ByReason map[Reason]uint64
}
