// Package auth says who a client without a certificate is: by a password file as mosquitto has it, or by a token.
package auth
