package broker_test

import (
	"fmt"
	"strings"
	"testing"
)

// A name with as many levels as there may be costs no more than a few times its length: retained messages and
// subscriptions are limited by number.
func TestLongNamesCostLittle(t *testing.T) {
	const count, most = 4000, 2500
	s := start(t, nil)
	c := s.dialRaw(t, "mallory")
	c.send(t, connect5("id"))
	c.read(t)
	before := settledHeap()
	for i := range count {
		c.send(t, packet(0x31, str(fmt.Sprintf("%d%s", i, strings.Repeat("/x", 15))), []byte{0}, []byte("1")))
	}
	c.send(t, packet(0xc0)) // and is answered when all that came before is done
	c.read(t)
	if n := s.Stats().Retained; n < count {
		t.Fatalf("%d are retained", n)
	}
	if each := (settledHeap() - before) / count; each > most {
		t.Errorf("a retained message takes %d bytes, want at most %d", each, most)
	} else {
		t.Logf("a retained message takes %d bytes", each)
	}
}
