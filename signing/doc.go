// Package signing makes and checks sealed messages, format v1, and holds the
// keys for it.
//
// A sealed message is a JSON Web Token (RFC 7519) in the compact serialisation
// of a JSON Web Signature (RFC 7515), so that every language can make one:
//
//	base64url(header) "." base64url(claims) "." base64url(r‖s)
//
//	{"alg":"ES256","kid":"<RFC 7638 thumbprint of the key>","typ":"pinseal+jwt"}
//	{"aud":"ledStatus","iat":1763787388.25,"seq":1763787388250000,"msg":"on"}
//
// What goes in: bytes from anywhere, a [Keyring] of trusted signers, the topic
// the bytes arrived on. What comes out: a [Message], or a [RefusedError] with
// one reason of a fixed list. A Message can only come from [Sealed.Verify], so
// a function that takes one cannot be handed anything unverified.
//
// The steps are separate, in the order in which a receiver must take them:
// [Parse], [Keyring.Lookup], [Sealed.Verify], [Message.CheckTopic], (whether the
// signer may do this), [Message.CheckFresh]. [Open] takes the ones that need no
// policy and no clock in one call.
//
// Signatures are deterministic (RFC 6979). They are never an identity: anyone
// can turn a valid (r, s) into the equally valid (r, n−s). What identifies a
// message is [Message.Digest], over the signed bytes.
//
// The package knows no clock, keeps no state and decides nothing about replays:
// see signing/replay. The normative text is docs/sealed-message-v1.md, with
// vectors in signing/testdata.
package signing

//go:generate go run pinseal/signing/internal/vectorgen -dir testdata
