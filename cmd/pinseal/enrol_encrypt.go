package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/pki/enrol"
	"pinseal/signing"
	"pinseal/signing/encryption"
)

// greeting is what a device that joins tells the node beside the keys that are certified and trusted.
type greeting struct {
	EncryptionKey string `json:"encryption_key"` // PEM: what can be encrypted to it with
}

// parseStrict reads JSON without unknown members.
func parseStrict(text []byte, to any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(to)
}

// welcome answers a greeting: whom the device is to encrypt to. Its own key is kept once its certificate is issued.
func (n *node) welcome(device string, signKey *signing.PublicKey, text []byte) ([]byte, func() error, error) {
	malformed := func(err error) error {
		return &pki.RefusedError{Reason: pki.ReasonMalformed, Err: fmt.Errorf("the greeting: %w", err)}
	}
	var g greeting
	if err := parseStrict(text, &g); err != nil {
		return nil, nil, malformed(err)
	}
	keys, err := encryption.ParsePublicKeys([]byte(g.EncryptionKey))
	if err == nil && len(keys) != 1 {
		err = errors.New("one key is wanted")
	}
	if err != nil {
		return nil, nil, malformed(err)
	}
	if err := n.onlyEncrypts(keys[0], signKey); err != nil {
		return nil, nil, err
	}
	var topics []topicName
	for _, topic := range n.commandTopics(device) {
		topics = append(topics, topicName(topic))
	}
	w, err := n.current.Load().welcome(n.layout, device, topics)
	if err != nil {
		return nil, nil, err
	}
	answer, err := json.Marshal(w)
	accept := func() error {
		if err := n.onlyEncrypts(keys[0], signKey); err != nil { // others have joined meanwhile
			return err
		}
		return n.addRecipient(device, keys[0])
	}
	return answer, accept, err
}

// onlyEncrypts wants a key that nobody signs with, nor will: a policy with such a one is refused, see separate.
func (n *node) onlyEncrypts(key *encryption.PublicKey, signKey *signing.PublicKey) error {
	keyring, err := readKeyring(n.layout)
	if err != nil {
		return err
	}
	if _, signs := keyring.Lookup(key.ID()); signs || key.ID() == signKey.ID() {
		return &pki.RefusedError{Reason: enrol.ReasonKnownKey, Err: errors.New("somebody signs with the key for encryption: make another")}
	}
	return nil
}

// addRecipient keeps the key beside those of the other devices that joined.
func (n *node) addRecipient(device string, key *encryption.PublicKey) error {
	if _, err := makeFolder(n.layout.joinedRecipients()); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(n.layout.joinedRecipients(), device+".pem"), key.PEM(), 0o644)
}

// greet makes the device's key for encryption, and what it tells the node about it.
func (b bundle) greet(device string) ([]byte, error) {
	key, err := encryption.GenerateKey()
	if err != nil {
		return nil, err
	}
	files := fileSet{
		{b.encryption().own, key.PEM(), 0o600},
		{b.encryption().publicKey(device), key.Public().PEM(), 0o644},
	}
	if err := files.create(); err != nil {
		return nil, err
	}
	return json.Marshal(greeting{string(key.Public().PEM())})
}

// parseWelcome reads the node's answer; a node without encryption gives none.
func parseWelcome(text []byte) (welcome, error) {
	var w welcome
	if len(text) == 0 {
		return w, nil
	}
	err := parseStrict(text, &w)
	if err == nil {
		err = w.check()
	}
	if err != nil {
		return w, fmt.Errorf("the node's welcome: %w", err)
	}
	return w, nil
}
