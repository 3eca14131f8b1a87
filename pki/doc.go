// Package pki is the small public key infrastructure behind mutual TLS: an
// authority that issues certificates to one node and its clients, and the TLS
// configurations both sides use.
//
// A client's identity is the common name of its certificate, [A-Za-z0-9_-]{1,64}.
// Client certificates carry the extended key usage clientAuth, the broker's
// serverAuth with DNS and IP subject alternative names (RFC 5280 section
// 4.2.1.12, RFC 9525). Keys we make are ECDSA P-256; keys and certificates made by
// OpenSSL (SEC 1, PKCS 1, PKCS 8; RSA and Ed25519 too) are understood.
//
// Whoever holds a key asks for a certificate with a [Request]; what it may have
// is a [Profile], whatever it asks for. A [Journal] keeps what was issued.
//
// Every validity check uses a time the caller gives, because a Raspberry Pi may
// boot in the past: the caller's clock has a floor. The system clock is never
// read. A TLS session that is resumed is judged as any other connection, against
// the files as they were last loaded; after they were loaded none is resumed.
//
// Revocation is a [DenyList] of our own and the revocation lists of whatever
// authority (RFC 5280 section 5).
package pki
