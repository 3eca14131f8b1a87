package encryption_test

import (
	"testing"

	"pinseal/signing/encryption"
)

// What encrypting and opening cost beside a signature, see signing's benchmarks.
func BenchmarkEncrypt(b *testing.B) {
	p := testParties(b)
	for name, to := range map[string][]encryption.Recipient{"public": p.to()[:1], "shared": p.to()[1:]} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encrypt(b, to, ordinary(), `"on"`)
			}
		})
	}
}

func BenchmarkDecrypt(b *testing.B) {
	p := testParties(b)
	keys := p.keys()
	for name, to := range map[string][]encryption.Recipient{"public": p.to()[:1], "shared": p.to()[1:]} {
		msg := encrypt(b, to, ordinary(), `"on"`)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := keys.Decrypt(msg, ordinary()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
