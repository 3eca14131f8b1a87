// Package renewal replaces a certificate and its key by new ones before the old
// ones expire, so that nothing that happens on the way locks their holder out.
//
// The new key is made beside the old one, in files with ".next" behind their
// names, certified, and tried: only when a connection has come about with it
// are the files exchanged. Until then the old ones are in force, through power
// cuts and for weeks of failed attempts. Of the two files that must be exchanged,
// the certificate goes first; a power cut between them is made good by
// [Holder.Settle].
package renewal

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pinseal/internal/atomicfile"
	"pinseal/pki"
)

// next is behind the names of what is not in force yet.
const next = ".next"

// Due is when a certificate is to be renewed: after two thirds of its lifetime,
// and up to a twentieth of it later, so that not all that were issued together
// come together. The same certificate always gives the same time.
func Due(cert *x509.Certificate) time.Time {
	lifetime := cert.NotAfter.Sub(cert.NotBefore)
	sum := sha256.Sum256(cert.Raw)
	jitter := time.Duration(binary.BigEndian.Uint16(sum[:])) * (lifetime / 20 >> 16)
	return cert.NotBefore.Add(lifetime/3*2 + jitter)
}

// Obtained is what an authority gives for a key.
type Obtained struct {
	Chain []*x509.Certificate // the holder's own first
	// Anchors are what to trust from now on; none: what was trusted before.
	Anchors []*x509.Certificate
}

// ErrBusy says that somebody else is renewing the same certificate.
var ErrBusy = errors.New("another process is renewing this certificate")

// Holder renews one certificate. Of those who do so at the same time, in however
// many processes, one gets to. Where root does, the files stay their owners'.
type Holder struct {
	// Files are those in force. CA is replaced by the anchors that are obtained.
	Files pki.Files
	// Obtain has the authority certify a new key.
	Obtain func(ctx context.Context, key crypto.Signer) (Obtained, error)
	// Try makes a connection with what is not in force yet.
	Try func(ctx context.Context, staged pki.Files) error
	// Now judges certificates.
	Now func() time.Time
}

func (h *Holder) staged() pki.Files {
	return pki.Files{Certificate: h.Files.Certificate + next, Key: h.Files.Key + next, CA: h.Files.CA + next}
}

// Attempted is the file whose modification time is that of the last attempt that
// has not come to its end.
func (h *Holder) Attempted() string { return h.staged().Key }

// Current reads the certificate in force.
func (h *Holder) Current() (*x509.Certificate, error) { return readLeaf(h.Files.Certificate) }

func readLeaf(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	certs, err := pki.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs[0], nil
}

func readKey(path string) (crypto.Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// Settle finishes an exchange that was cut short. It is to be called before the
// files are used.
func (h *Holder) Settle() error {
	unlock, err := h.lock()
	if errors.Is(err, ErrBusy) {
		return nil // who is at it will
	}
	if err != nil {
		return err
	}
	defer unlock()
	return h.settle()
}

// lock keeps others away from the files, without waiting for them.
func (h *Holder) lock() (unlock func(), err error) {
	folder, err := os.Open(filepath.Dir(h.Files.Key))
	if err != nil {
		return nil, fmt.Errorf("locking the certificate's folder: %w", err)
	}
	unlock = func() { _ = folder.Close() } // opened for its lock only, which goes with it
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		unlock()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("locking the certificate's folder: %w", err)
	}
	return unlock, nil
}

func (h *Holder) settle() error {
	staged := h.staged()
	key, err := readKey(staged.Key)
	if pathError, ok := errors.AsType[*fs.PathError](err); ok && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("finishing a renewal: %w", pathError)
	}
	if err != nil {
		return nil //nolint:nilerr // there is none, or a damaged one, which nextKey replaces
	}
	cert, err := h.Current()
	if err != nil || !pki.Belongs(key, cert) {
		return err // the exchange had not begun
	}
	return h.replace(staged.Key, h.Files.Key)
}

// replace renames and makes sure of it.
func (h *Holder) replace(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("exchanging certificates: %w", err)
	}
	return atomicfile.SyncFolder(filepath.Dir(to))
}

// Renew takes a renewal as far as it can, from wherever the last attempt came
// to. Without an error what is in force is new.
func (h *Holder) Renew(ctx context.Context) error {
	unlock, err := h.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := h.settle(); err != nil {
		return err
	}
	key, err := h.nextKey()
	if err != nil {
		return err
	}
	if !h.certified(key) {
		if err := h.certify(ctx, key); err != nil {
			return err
		}
	}
	if err := h.Try(ctx, h.tryFiles()); err != nil {
		return fmt.Errorf("trying the new certificate: %w", err)
	}
	return h.exchange()
}

// nextKey makes the next key, or finds the one that an earlier attempt has made.
func (h *Holder) nextKey() (crypto.Signer, error) {
	path := h.staged().Key
	key, err := readKey(path)
	if err == nil {
		now := h.Now()
		return key, os.Chtimes(path, now, now)
	}
	// One that cannot be read is of no use, and nobody's yet.
	if key, err = pki.GenerateKey(); err != nil {
		return nil, err
	}
	text, err := pki.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	return key, atomicfile.WriteFor(h.Files.Key, path, text, 0o600)
}

// certified reports whether an earlier attempt got a certificate that is still worth trying.
func (h *Holder) certified(key crypto.Signer) bool {
	cert, err := readLeaf(h.staged().Certificate)
	return err == nil && pki.Belongs(key, cert) && h.Now().Before(Due(cert))
}

func (h *Holder) certify(ctx context.Context, key crypto.Signer) error {
	got, err := h.Obtain(ctx, key)
	if err != nil {
		return err
	}
	if len(got.Chain) == 0 || !pki.Belongs(key, got.Chain[0]) {
		return errors.New("the authority certified another key than ours")
	}
	staged := h.staged()
	if len(got.Anchors) > 0 && h.Files.CA != "" {
		if err := atomicfile.WriteFor(h.Files.CA, staged.CA, pki.EncodeCertificates(got.Anchors...), 0o644); err != nil {
			return err
		}
	}
	return atomicfile.WriteFor(h.Files.Certificate, staged.Certificate, pki.EncodeCertificates(got.Chain...), 0o644)
}

// tryFiles are the staged ones, with the old anchors if there are no new ones.
func (h *Holder) tryFiles() pki.Files {
	staged := h.staged()
	if _, err := os.Lstat(staged.CA); err != nil {
		staged.CA = h.Files.CA
	}
	return staged
}

// exchange puts into force what has been tried: the anchors, which go with the
// old certificate too, then the certificate, then the key.
func (h *Holder) exchange() error {
	staged := h.staged()
	if anchors, err := os.ReadFile(staged.CA); err == nil && h.Files.CA != "" {
		present, err := os.ReadFile(h.Files.CA)
		if err != nil {
			return fmt.Errorf("exchanging authorities: %w", err)
		}
		if !bytes.Equal(anchors, present) {
			if err := atomicfile.WriteFor(h.Files.CA, h.Files.CA, anchors, 0o644); err != nil {
				return err
			}
		}
		if err := os.Remove(staged.CA); err != nil {
			return fmt.Errorf("exchanging authorities: %w", err)
		}
	}
	if err := h.replace(staged.Certificate, h.Files.Certificate); err != nil {
		return err
	}
	return h.replace(staged.Key, h.Files.Key)
}
