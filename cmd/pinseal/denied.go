package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pinseal/agent"
	"pinseal/broker"
	"pinseal/internal/atomicfile"
	"pinseal/pki"
	"pinseal/signing"
)

// readDenied reads the deny list, which need not be there.
func readDenied(l layout) (*pki.DenyList, error) {
	data, err := os.ReadFile(l.denied())
	if errors.Is(err, fs.ErrNotExist) {
		return &pki.DenyList{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the deny list: %w", err)
	}
	list, err := pki.ParseDenyList(data)
	if err != nil {
		return nil, withHint(fmt.Errorf("%s: %w", l.denied(), err), "mend the line, or restore the file from a backup; without the file nobody is denied")
	}
	return list, nil
}

// changeDenied changes the deny list. Whoever else does so at the same time waits.
func changeDenied(l layout, change func(*pki.DenyList) error) error {
	if _, err := makeFolder(filepath.Dir(l.denied())); err != nil {
		return err
	}
	return alone(filepath.Dir(l.denied()), func() error {
		list, err := readDenied(l)
		if err != nil {
			return err
		}
		if err := change(list); err != nil {
			return err
		}
		return atomicfile.Write(l.denied(), list.Text(), 0o644)
	})
}

// denyFormer denies by its number every certificate that a denied name was ever given. One that was renewed while the name
// was being denied is not on the list yet, and would be good again with the name.
func denyFormer(l layout, name string, now time.Time) error {
	list, err := readDenied(l)
	if _, denied := list.Since(name); err != nil || !denied {
		return err
	}
	former, err := issuedTo(l, name)
	if err != nil {
		return err
	}
	return denyCertificates(l, name, former, now)
}

// denyCertificates denies a name, and certificates by their numbers.
func denyCertificates(l layout, name string, certificates []*x509.Certificate, now time.Time) error {
	return changeDenied(l, func(list *pki.DenyList) error {
		var serials []*big.Int
		for _, certificate := range certificates {
			serials = append(serials, certificate.SerialNumber)
		}
		list.Deny(name, serials, now)
		return nil
	})
}

// admit lets a name in again that was denied: it has been given another certificate.
func admit(l layout, name string) error {
	list, err := readDenied(l)
	if _, denied := list.Since(name); err != nil || !denied {
		return err
	}
	return changeDenied(l, func(list *pki.DenyList) error {
		list.Admit(name)
		return nil
	})
}

func (c *config) deniedNames() []string {
	if c.denied == nil {
		return nil
	}
	return c.denied.Names()
}

func (c *config) denies(name string) bool { return slices.Contains(c.deniedNames(), name) }

// withoutDenied takes the keys of denied names out, should a file of theirs have been put back.
func (c *config) withoutDenied(keyring *signing.Keyring) (*signing.Keyring, error) {
	signers := slices.DeleteFunc(slices.Clone(keyring.Signers()), func(s signing.Signer) bool { return c.denies(s.Name) })
	return signing.NewKeyring(signers...)
}

func (c *config) withoutDeniedSigners(p agent.Policy) (*agent.Policy, error) {
	var err error
	p.Keyring, err = c.withoutDenied(p.Keyring)
	p.Legacy = slices.DeleteFunc(slices.Clone(p.Legacy), func(key agent.LegacyKey) bool { return c.denies(key.Signer) })
	return &p, err
}

func (n *node) openDenials() (err error) {
	n.config.denied, err = readDenied(n.layout)
	n.current.Store(n.config)
	return err
}

// Deny puts the deny list and the revocation lists into effect, and nothing else: whatever else is wrong with the
// node's files does not keep a revocation from taking effect.
func (n *node) Deny() error {
	n.loading.Lock()
	defer n.loading.Unlock()
	denied, err := readDenied(n.layout)
	if err != nil {
		return err
	}
	cfg := *n.current.Load()
	cfg.denied = denied
	n.current.Store(&cfg)
	return errors.Join(n.denyAtBroker(&cfg), n.denySigners(&cfg))
}

func (n *node) denyAtBroker(cfg *config) error {
	var errs []error
	for _, s := range n.servers {
		if s != nil {
			errs = append(errs, explainTLS(s.ReloadRevocations()))
		}
	}
	if n.broker == nil {
		return errors.Join(errs...)
	}
	policy, unread := cfg.brokerPolicy()
	if unread != nil { // then as it was, but for the denied
		former := *n.rules
		former.Denied = cfg.deniedNames()
		policy = &former
	}
	err := n.setRules(policy)
	n.broker.Recheck(n.checkCertificate)
	return errors.Join(append(errs, unread, err)...)
}

// setRules has the broker go by a policy from now on.
func (n *node) setRules(policy *broker.Policy) error {
	if err := n.broker.SetPolicy(policy); err != nil {
		return err
	}
	n.rules = policy
	return nil
}

// denySigners reads the keys again. Where that cannot be done, at least those of denied names go from what is in force.
func (n *node) denySigners(cfg *config) error {
	policy, unread := cfg.agentPolicy(n.layout)
	if unread != nil {
		var err error
		if policy, err = cfg.withoutDeniedSigners(*n.policy); err != nil {
			return errors.Join(unread, err)
		}
	}
	return errors.Join(unread, n.setPolicy(policy))
}

// setPolicy has the agent go by a policy from now on.
func (n *node) setPolicy(policy *agent.Policy) error {
	if err := n.agent.SetPolicy(policy); err != nil {
		return err
	}
	n.policy = policy
	n.signers.Store(int64(len(policy.Keyring.Signers())))
	return nil
}

// revocationList is signed when somebody asks, so that it is never over: from the deny list, which is what holds.
func (n *node) revocationList() ([]byte, error) {
	authority, err := n.authority()
	if err != nil {
		return nil, err
	}
	previous, err := os.ReadFile(n.layout.crl())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the revocation list: %w", err)
	}
	text, err := authority.RevocationList(n.current.Load().denied, previous, n.clock.FloorNow())
	if err != nil {
		return nil, err
	}
	lists, err := pki.ParseRevocationLists(text)
	if err != nil {
		return nil, err
	}
	return lists[0].Raw, nil
}

// publishedList reads the list that was last written for others; nil if nobody has had one made.
func (l layout) publishedList() (*x509.RevocationList, error) {
	text, err := os.ReadFile(l.crl())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("reading the revocation list: %w", err)
	}
	lists, err := pki.ParseRevocationLists(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.crl(), err)
	}
	return lists[0], nil
}
