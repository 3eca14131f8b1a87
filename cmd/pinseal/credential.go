package main

import (
	"os"
	"path/filepath"
)

// Names of the keys that systemd can hand over (LoadCredential=, LoadCredentialEncrypted=; systemd.exec(5)).
const (
	signCredential   = "sign.key"
	brokerCredential = "broker.key"
	agentCredential  = "agent.key" // for a broker elsewhere

	decryptCredential   = "decrypt.key" //nolint:gosec // a name
	authorityCredential = "ca.key"
)

// credential is the path of a key: that which systemd handed over under this name, or else the given one.
func credential(name, otherwise string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return otherwise
	}
	path := filepath.Join(dir, name)
	if _, err := os.Lstat(path); err != nil { //nolint:gosec // the folder is systemd's to name
		return otherwise
	}
	return path
}

// serviceCredentials is where systemd shows the running service's keys, to root too (systemd.exec(5)).
const serviceCredentials = "/run/credentials/pinseal.service"

// keyForCommands is credential for commands beside the service: what that has is found while it runs.
func keyForCommands(name, otherwise string) string {
	path := credential(name, otherwise)
	if path == otherwise && !exists(otherwise) {
		if handed := filepath.Join(serviceCredentials, name); exists(handed) {
			return handed
		}
	}
	return path
}
