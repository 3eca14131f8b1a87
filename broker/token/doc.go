// Package token judges OAuth 2.0 bearer tokens that are JSON Web Tokens (RFC 7519, profile RFC 9068): who their bearer
// is, and until when.
//
// A token is good if one of the issuer's keys has signed it with an asymmetric algorithm that fits this key, its issuer
// and one of its audiences are the expected ones, it has begun and has not expired, and the claim that names the bearer
// holds a name that a client can have. Where an introspection endpoint is configured (RFC 7662), that must call it
// active as well, at the beginning and again and again while its bearer is connected.
//
// The issuer's keys are a JSON Web Key Set (RFC 7517), from a file or from a URL. Keys and addresses that a token itself
// brings along (jwk, jku, x5c, x5u) are never used, as RFC 8725 asks.
//
// What the package deliberately does not do: encrypted tokens, tokens that are not JWTs, symmetric keys.
package token
