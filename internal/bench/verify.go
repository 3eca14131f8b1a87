package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"runtime"
	"sync"
	"time"

	"pinseal/signing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1 "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/sync/errgroup"
)

// addVerification compares opening a sealed message with the curve operation it cannot do without, as the library under
// it offers that, on one processor.
func (r results) addVerification() error {
	for _, v := range []struct {
		row  string
		alg  signing.Algorithm
		bare func() (func() bool, error)
	}{
		{rowES256, signing.ES256, bareP256},
		{rowES256K, signing.ES256K, bareSecp256k1},
	} {
		open, err := measured(func() (func() bool, error) { return openSealed(v.alg) })
		if err != nil {
			return err
		}
		alone, err := measured(v.bare)
		if err != nil {
			return err
		}
		r.add(nameOurs, figures{v.row: open})
		r.add(bare, figures{v.row: alone})
	}
	r[nameOurs][rowShare] = r[nameOurs][rowRate]
	perSecond, err := onAllProcessors(bareP256)
	r.add(bare, figures{rowShare: perSecond})
	return err
}

// onAllProcessors gives the calls a second of as many goroutines as there are processors.
func onAllProcessors(prepare func() (func() bool, error)) (float64, error) {
	var mu sync.Mutex
	var group errgroup.Group
	sum := 0.0
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			micros, err := measured(prepare)
			mu.Lock()
			defer mu.Unlock()
			sum += 1e6 / micros
			return err
		})
	}
	return sum, group.Wait()
}

func openSealed(alg signing.Algorithm) (func() bool, error) {
	key, err := signing.GenerateKey(alg)
	if err != nil {
		return nil, err
	}
	keyring, err := signing.NewKeyring(signing.Signer{Name: signer, Key: key.Public()})
	if err != nil {
		return nil, err
	}
	sealed, err := signing.Seal(key, signing.Claims{Topic: topic, IssuedAt: time.Now(), Sequence: 1, Message: []byte(`"1"`)})
	return func() bool {
		_, _, err := signing.Open(sealed, topic, keyring)
		return err == nil
	}, err
}

func bareP256() (func() bool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte(topic))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	return func() bool { return ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) }, err
}

func bareSecp256k1() (func() bool, error) {
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	digest, public := sha256.Sum256([]byte(topic)), key.PubKey()
	signature := k1.Sign(key, digest[:])
	return func() bool { return signature.Verify(digest[:], public) }, nil
}

// verifyTime is how long each operation is repeated in a round.
const verifyTime = 300 * time.Millisecond

// measured gives the microseconds of one call.
func measured(prepare func() (func() bool, error)) (float64, error) {
	call, err := prepare()
	if err != nil {
		return 0, err
	}
	begin, calls := time.Now(), 0
	for time.Since(begin) < verifyTime {
		for range 100 {
			if !call() {
				return 0, errors.New("a good signature was refused")
			}
		}
		calls += 100
	}
	return time.Since(begin).Seconds() * 1e6 / float64(calls), nil
}
