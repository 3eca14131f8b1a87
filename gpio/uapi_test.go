package gpio

import (
	"encoding/binary"
	"testing"
	"time"
	"unsafe"

	"periph.io/x/conn/v3/gpio"
)

// What the kernel's headers say about where things lie (include/uapi/linux/gpio.h), in numbers of their own: the
// compiler's layout is what is tested.
func TestKernelLayout(t *testing.T) {
	var request uapiLineRequest
	var config uapiLineConfig
	for what, at := range map[string][2]uintptr{
		"request.consumer":            {unsafe.Offsetof(request.consumer), 256},
		"request.config":              {unsafe.Offsetof(request.config), 288},
		"request.num_lines":           {unsafe.Offsetof(request.lines), 560},
		"request.event_buffer_size":   {unsafe.Offsetof(request.buffer), 564},
		"request.fd":                  {unsafe.Offsetof(request.fd), 588},
		"config.num_attrs":            {unsafe.Offsetof(config.attributes), 8},
		"config.attrs":                {unsafe.Offsetof(config.attribute), 32},
		"config.attrs[0].attr.id":     {unsafe.Offsetof(config.attribute[0].id), 0},
		"config.attrs[0].attr.values": {unsafe.Offsetof(config.attribute[0].value), 8},
		"config.attrs[0].mask":        {unsafe.Offsetof(config.attribute[0].mask), 16},
	} {
		if at[0] != at[1] {
			t.Errorf("%s lies at %d, the kernel has it at %d", what, at[0], at[1])
		}
	}
}

func TestDebounceEncoding(t *testing.T) {
	if c := inputConfig(flagInput, 0); c.attributes != 0 {
		t.Errorf("no debouncing has %d attributes", c.attributes)
	}
	for period, want := range map[time.Duration]uint32{
		5 * time.Millisecond: 5000, time.Nanosecond: 1, 2 * time.Hour: 1<<32 - 1,
	} {
		c := inputConfig(flagInput|flagPullUp, period)
		a := c.attribute[0]
		var union [8]byte
		binary.NativeEndian.PutUint64(union[:], a.value)
		if got := binary.NativeEndian.Uint32(union[:]); got != want || c.attributes != 1 || a.id != 3 || a.mask != 1 || c.flags != flagInput|flagPullUp {
			t.Errorf("%v: %d µs in %+v", period, got, c)
		}
	}
}

func TestEventDecoding(t *testing.T) {
	var b [eventBytes]byte
	order := binary.NativeEndian
	order.PutUint64(b[0:], 123456789)
	order.PutUint32(b[8:], 1)   // rising
	order.PutUint32(b[12:], 22) // offset
	order.PutUint32(b[16:], 70) // seqno
	order.PutUint32(b[20:], 7)  // line_seqno
	if e := parseEvent(&b); e.timestamp != 123456789 || e.id != eventRisingEdge || e.number != 7 {
		t.Fatalf("%+v", e)
	}
	l := &kernelLine{number: 4}
	if e := l.edgeOf(parseEvent(&b)); e.Level != High || e.Lost != 2 || time.Since(e.At) < 0 {
		t.Errorf("%+v", e)
	}
	order.PutUint32(b[8:], 2) // falling
	order.PutUint32(b[20:], 8)
	if e := l.edgeOf(parseEvent(&b)); e.Level != Low || e.Lost != 0 {
		t.Errorf("%+v", e)
	}
}

func TestInputFlags(t *testing.T) {
	for _, c := range []struct {
		pull Pull
		edge gpio.Edge
		want uint64
	}{
		{PullNoChange, gpio.NoEdge, 1 << 2},
		{PullUp, gpio.BothEdges, 1<<2 | 1<<8 | 1<<4 | 1<<5},
		{PullDown, gpio.RisingEdge, 1<<2 | 1<<9 | 1<<4},
		{PullFloat, gpio.FallingEdge, 1<<2 | 1<<10 | 1<<5},
	} {
		if got, err := inputFlags(c.pull, c.edge); err != nil || got != c.want {
			t.Errorf("%v, %v: flags %#x, %v, want %#x", c.pull, c.edge, got, err, c.want)
		}
	}
	if _, err := inputFlags(99, gpio.NoEdge); err == nil {
		t.Error("an unknown pull was taken")
	}
}
