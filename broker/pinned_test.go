package broker_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
)

// padding is a user property that makes a packet large.
func padding() []byte {
	p := slices.Concat([]byte{0x26}, str("k"), str(string(make([]byte, 60_000))))
	for i := range p[6:] {
		p[6+i] = 'x'
	}
	return append([]byte{byte(len(p)&0x7f | 0x80), byte(len(p)>>7&0x7f | 0x80), byte(len(p) >> 14)}, p...)
}

// settledHeap is what is left after a collection.
func settledHeap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one found in pools
	return heap()
}

// What is kept of a packet must not keep all of it: a hundred bytes could hold on to a hundred thousand that nobody counts.
func TestNothingKeepsItsPacket(t *testing.T) {
	const count, most = 60, 40_000
	s := start(t, nil)
	first := s.dialRaw(t, "mallory")
	first.send(t, connect5("first"))
	first.read(t)

	before := settledHeap()
	for i := range count {
		first.send(t, packet(0x82, []byte{0, 1}, padding(), str(fmt.Sprint("x/", i)), []byte{0}))
		first.read(t)
	}
	if each := (max(before, settledHeap()) - before) / count; each > most {
		t.Errorf("a subscription takes %d bytes", each)
	}

	all := make([]raw, count)
	for i := range all {
		all[i] = s.dialRaw(t, "mallory")
	}
	before = settledHeap()
	for i, c := range all {
		c.send(t, packet(0x10, str("MQTT"), []byte{5, 6, 0, 60}, padding(), str(fmt.Sprint("id", i)), []byte{0}, str("will"), str("w")))
		c.read(t)
	}
	if each := (max(before, settledHeap()) - before) / count; each > most {
		t.Errorf("a connection takes %d bytes", each)
	}
	runtime.KeepAlive(all)
}
