package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"pinseal/pki"
	"pinseal/pki/enrol"
)

// enrolConfig is [enrol]: where devices join. Without an address none can.
type enrolConfig struct {
	Address      listenAddress  `toml:"address"`
	Lifetime     leafLifetime   `toml:"lifetime"`      // of certificates
	CodeLifetime codeLifetime   `toml:"code_lifetime"` // of join codes
	Extras       extrasHandling `toml:"extras"`        // what a request asks for beyond the profile
	Grace        graceLength    `toml:"grace"`         // for which an expired certificate can be renewed

	MaxConnections           limit          `toml:"max_connections"`
	MaxConnectionsPerAddress limit          `toml:"max_connections_per_address"`
	MaxBodyBytes             limit          `toml:"max_body_bytes"`
	MaxRequests              limit          `toml:"max_requests"`
	MaxWrongCodes            limit          `toml:"max_wrong_codes"`
	MaxRenewals              limit          `toml:"max_renewals"`
	Timeout                  positiveLength `toml:"timeout"`
}

type (
	leafLifetime   time.Duration // an hour to 825 days
	codeLifetime   time.Duration // above 0, at most a day
	extrasHandling string        // drop, refuse
	graceLength    time.Duration // not negative
)

const (
	minLeafLifetime = time.Hour
	maxLeafLifetime = 825 * 24 * time.Hour // the most that Apple's TLS accepts from a private authority
	maxCodeLifetime = 24 * time.Hour
	// defaultGrace is for machines that have been switched off for a while.
	defaultGrace = 30 * 24 * time.Hour
	// defaultEnrol is where devices join unless init is told otherwise.
	defaultEnrol = ":8443"
	// deviceProfile is what the journal calls certificates of devices that made their own keys, clientProfile those that were
	// issued by hand, and what takes their places.
	deviceProfile = "device"
	clientProfile = "client"
)

func (e extrasHandling) check() error { return oneOf(e, "drop", "refuse") }

func (d *leafLifetime) UnmarshalText(text []byte) error {
	var length positiveLength
	if err := length.UnmarshalText(text); err != nil {
		return err
	}
	*d = leafLifetime(length)
	if time.Duration(length) < minLeafLifetime || time.Duration(length) > maxLeafLifetime {
		return fmt.Errorf("%s is not from %s to %s", text, minLeafLifetime, maxLeafLifetime)
	}
	return nil
}

func (d *graceLength) UnmarshalText(text []byte) error {
	length, err := time.ParseDuration(string(text))
	if err != nil || length < 0 {
		return fmt.Errorf(`%q is not a length of time, such as "720h", or "0s" for none`, text)
	}
	*d = graceLength(length)
	return nil
}

func (d *codeLifetime) UnmarshalText(text []byte) error {
	var length positiveLength
	if err := length.UnmarshalText(text); err != nil {
		return err
	}
	*d = codeLifetime(length)
	if time.Duration(length) > maxCodeLifetime {
		return fmt.Errorf("%s is more than the %s a join code may be good for", text, maxCodeLifetime)
	}
	return nil
}

func defaultEnrolConfig() enrolConfig {
	return enrolConfig{Lifetime: leafLifetime(pki.DefaultLifetime), CodeLifetime: codeLifetime(enrol.DefaultCodeLifetime), Extras: "drop", Grace: graceLength(defaultGrace)}
}

func (c *config) checkEnrol(data []byte) error {
	here := place{table: "enrol", key: "address"}
	switch {
	case !c.enrols():
		return nil
	case c.Enrol.Address.unix():
		return at(data, here, "devices join over the network: HOST:PORT")
	case c.Agent.Broker != "" || c.Agent.Bundle != "":
		return at(data, here, "devices join a node that has its own broker")
	}
	if _, err := c.Enrol.port(); err != nil {
		return at(data, here, "%w", err)
	}
	return nil
}

func (c *config) enrols() bool { return c.Enrol.Address != "" }

// port is the one that devices are told.
func (e enrolConfig) port() (uint16, error) {
	_, text, err := net.SplitHostPort(string(e.Address))
	if err != nil {
		return 0, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, errors.New("devices need to be told a port")
	}
	return uint16(port), nil
}

// enrolPort is where certificates are renewed, 0 if nowhere.
func (c *config) enrolPort() uint16 {
	if !c.enrols() {
		return 0
	}
	port, _ := c.Enrol.port() // was checked when it was read
	return port
}

func (e enrolConfig) profile() pki.Profile {
	return pki.Profile{Name: deviceProfile, Lifetime: time.Duration(e.Lifetime), Strict: e.Extras == "refuse"}
}

func (e enrolConfig) limits() enrol.Limits {
	return enrol.Limits{
		MaxConnections:           int(e.MaxConnections),
		MaxConnectionsPerAddress: int(e.MaxConnectionsPerAddress),
		MaxBodyBytes:             int(e.MaxBodyBytes),
		MaxRequests:              int(e.MaxRequests),
		MaxWrongCodes:            int(e.MaxWrongCodes),
		MaxRenewals:              int(e.MaxRenewals),
		Timeout:                  time.Duration(e.Timeout),
	}
}
