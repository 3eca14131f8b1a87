// Package enrol lets devices in: a device makes its keys itself, shows a
// one-time code that the operator has given it, and gets a certificate for them.
// No private key ever travels.
//
// A [Server] speaks two ways over HTTPS:
//
//   - EST (RFC 7030 with the corrections of RFC 8951), for whatever speaks it,
//     curl and openssl among them: cacerts, csrattrs, simpleenroll with the
//     device's name and code as HTTP basic authentication, and simplereenroll
//     with the certificate that is to be renewed;
//   - POST /sign/NAME/pkcs10, JSON, for platforms that sign for their devices
//     with the bearer token of an operator, and for [Invitation.Join], which
//     registers a signing key in the same breath.
//
// What is issued is the profile's ([pki.Profile]), whatever is asked for, and is
// in the journal before it leaves. A signing key is registered by a code only,
// never by a certificate: else who steals a TLS key could speak for its owner.
//
// Refusals are JSON, {"error": REASON, "detail": TEXT}; the reasons are those of
// [Reason] and [pki.Reason].
package enrol
