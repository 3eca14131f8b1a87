// Package broker is the MQTT broker (3.1.1 and 5.0) of a node. The packets are decoded and encoded by mochi's codec; its
// server is not used. What makes it fit to meet the network:
//
//   - Every connection is tracked, counted and served under a recover. It has a deadline until its CONNECT is complete, a
//     deadline on every packet and on every write, and it can always be closed: shutdown does not depend on what a client
//     does.
//   - The byte stream passes a strict check (package frame) before the decoder sees it: only whole, well-formed packets of a
//     bounded size get through.
//   - Writes never block: they are collected and sent by a goroutine of the connection, so that a client that does not read
//     delays nobody else.
//   - Who a client is comes from its TLS certificate or, where a listener takes them, from a password or a token. Sessions
//     are named "identity:clientid", so that no identity can reach the session of another.
//   - Nothing is allowed unless a rule of the Policy allows it: publishing, subscribing, wills, and each single delivery.
//   - What is acknowledged is on disk before (Config.Persistence), where a session or a retained message is to survive.
//
// # Goroutines
//
// A connection has one while it is idle, which reads. What a handshake and a CONNECT need of a stack ends with a goroutine of
// their own (greet), so that the next one (serve) begins with a small stack. A third lives only while there is something to
// write (flush).
//
// A packet is decoded where it was read. What may be kept of it, which is a message that is retained, or waits for an
// acknowledgement, and every filter and topic, is copied before; a message at QoS 0 has gone to all its receivers before
// the next packet is read.
//
// # WebSockets
//
// They are opened and read by gorilla/websocket, which both MQTT libraries bring along anyway. It stands where TLS
// stands, below the strict check: limits, deadlines and certificates are the same as without.
//
// # Publishing that is refused
//
// With MQTT 3.1.1 a refused publish is dropped; at QoS 1 and 2 it is acknowledged all the same, because the protocol has
// no way to say no and the client would send it again for ever. With MQTT 5 it is answered with reason code 0x87.
//
// # Keep alive
//
// A keep alive of 0 (never) or above Limits.MaxKeepAlive counts as Limits.MaxKeepAlive. An MQTT 5 client is told so in
// its CONNACK. MQTT 3.1.1 has no words for it: a 3.1.1 client that asked for more must expect to be disconnected when it
// was silent for one and a half times Limits.MaxKeepAlive.
package broker
