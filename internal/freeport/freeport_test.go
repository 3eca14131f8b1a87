package freeport_test

import (
	"net"
	"testing"

	"pinseal/internal/freeport"
)

func TestNeverTheSameTwice(t *testing.T) {
	given := make(map[string]bool)
	for range 300 {
		address, err := freeport.Address()
		if err != nil {
			t.Fatal(err)
		}
		if given[address] {
			t.Fatalf("%s was given twice", address)
		}
		given[address] = true
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = listener.Close() // nobody ever connected
	}
}
