// Package encryption hides what a sealed message says from everybody but its
// recipients: brokers on the way, and whoever may subscribe.
//
// The msg of a sealed message is then a JSON Web Encryption (RFC 7516) in its
// JSON serialisation, so that every language can make and open one:
//
//	{"protected":"<base64url>","encrypted_key":"<base64url>",
//	 "header":{"alg":"ECDH-ES+A256KW","kid":"<recipient>","epk":{…}},
//	 "iv":"<base64url>","ciphertext":"<base64url>","tag":"<base64url>"}
//
// With several recipients, "recipients" is an array of what each of them needs.
// The protected header, which the ciphertext is authenticated with, repeats the
// topic, the signing key and the number of the sealed message around it: a
// ciphertext that somebody else signs, or that is put into another message, is
// refused.
//
// Recipients are P-256 or X25519 keys (ECDH-ES+A256KW), which are for nothing
// but this, or keys of 256 bits that several parties share (A256KW). Each is known by its
// RFC 7638 thumbprint. Whoever changes keys keeps the old ones for opening.
//
// What goes in to [Encrypt]: recipients, a [Binding], one JSON value. What comes
// out goes to signing.Seal. What goes in to [Keys.Decrypt]: the JSON of a
// verified message. The package decides nothing about who must encrypt, and
// does not hide topic, signer, time or the rough size. The normative text is
// docs/encryption.md, with vectors in testdata.
package encryption
