package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"pinseal/pki"
)

// joining looks for what would keep devices from joining, and at the journal of what was issued.
func (n *nodeChecks) joining(context.Context) (string, error) {
	if n.elsewhere() {
		return brokerElsewhere, nil
	}
	history, err := pki.ReadJournal(n.layout.journal())
	if err != nil {
		return "", withHint(err, "nothing is issued behind a damaged line, and what follows it cannot be believed: restore the file from a backup")
	}
	issued := fmt.Sprintf("certificates in the journal: %d", len(history.Entries))
	if !n.config.enrols() {
		return "", noticef("devices cannot join (no [enrol]); %s; what renews certificates is %s, or its timer", issued, n.command("ca renew --due"))
	}
	if _, err := readAuthority(n.layout); err != nil {
		return "", err
	}
	if err := checkJoinable(n.layout, n.config); err != nil {
		return "", withHint(err, "devices that join know this authority only; --out of pinseal device add makes a bundle, whose ca.crt you can replace")
	}
	if n.running {
		return issued, nil
	}
	socket, err := net.Listen("tcp", string(n.config.Enrol.Address)) //nolint:noctx // binding does not block
	if err != nil {
		return "", withHint(fmt.Errorf("listening on %s, where devices join: %w", n.config.Enrol.Address, err), "see who has the port: ss -ltnp; or choose another in [enrol]")
	}
	return issued, socket.Close()
}

// checkJoinable wants a broker whose certificate comes from the authority that devices are told of.
func checkJoinable(l layout, cfg *config) error {
	broker, err := readCertificate(orDefault(cfg.TLS.Certificate, l.brokerCert()))
	if err != nil {
		return err
	}
	authorities, err := readAnchors(l)
	if err != nil {
		return err
	}
	for _, authority := range authorities {
		if broker.CheckSignatureFrom(authority) == nil {
			return nil
		}
	}
	return errors.New("devices cannot join: the broker's certificate is not from the authority of " + l.caCert())
}
