package frame_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/mochi-mqtt/server/v2/packets"

	"pinseal/broker/internal/frame"
)

// decode does with a packet what mochi's server does with it, which is more than the broker asks of it.
func decode(version byte, first byte, body []byte) (pk packets.Packet, err error) {
	pk.ProtocolVersion = version
	if err := pk.FixedHeader.Decode(first); err != nil {
		return pk, err
	}
	pk.FixedHeader.Remaining = len(body)
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if err = pk.ConnectDecode(body); err == nil {
			err = codeError(pk.ConnectValidate())
		}
	case packets.Publish:
		if err = pk.PublishDecode(body); err == nil {
			err = codeError(pk.PublishValidate(uint16(limits().TopicAliases)))
		}
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Pubrec:
		err = pk.PubrecDecode(body)
	case packets.Pubrel:
		err = pk.PubrelDecode(body)
	case packets.Pubcomp:
		err = pk.PubcompDecode(body)
	case packets.Subscribe:
		if err = pk.SubscribeDecode(body); err == nil {
			err = codeError(pk.SubscribeValidate())
		}
	case packets.Unsubscribe:
		if err = pk.UnsubscribeDecode(body); err == nil {
			err = codeError(pk.UnsubscribeValidate())
		}
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
	case packets.Pingreq:
	default:
		err = errors.New("packet type that mochi should never see")
	}
	return pk, err
}

func codeError(c packets.Code) error {
	if c == packets.CodeSuccess {
		return nil
	}
	return c
}

// mochiAccepts feeds mochi's decoder with what a Reader let through. A panic in it fails the test.
func mochiAccepts(t *testing.T, passed []byte) {
	t.Helper()
	r := bytes.NewReader(passed)
	version := byte(0)
	for r.Len() > 0 {
		first, _ := r.ReadByte()
		n, _, err := packets.DecodeLength(r)
		if err != nil || n > r.Len() {
			t.Fatalf("an incomplete packet was passed on: %v", err)
		}
		body := make([]byte, n)
		_, _ = io.ReadFull(r, body)
		pk, err := decode(version, first, body)
		switch {
		case err == nil:
		case errors.Is(err, packets.ErrProtocolViolationWillFlagNoPayload), errors.Is(err, packets.ErrProtocolViolationFlagNoPassword):
			// Legal; the broker does not ask mochi.
		default:
			t.Fatalf("mochi refuses % x of version %d, which was passed on: %v", append([]byte{first}, body...), version, err)
		}
		if pk.FixedHeader.Type == packets.Connect {
			version = pk.ProtocolVersion
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err := readAll(frame.NewReader(bytes.NewReader(in), limits()))
		if !bytes.HasPrefix(in, whole) {
			t.Fatal("passed on bytes that were not sent")
		}
		if err == nil && len(whole) != len(in) {
			t.Fatalf("%d of %d bytes passed without an error", len(whole), len(in))
		}
		bytewise, err2 := readAll(frame.NewReader(iotest.OneByteReader(bytes.NewReader(in)), limits()))
		if !bytes.Equal(whole, bytewise) || (err == nil) != (err2 == nil) {
			t.Fatalf("%d bytes (%v) at once, %d bytes (%v) one by one", len(whole), err, len(bytewise), err2)
		}
		mochiAccepts(t, whole)
	})
}

// Every vector is a seed; the folder is what makes the fuzzer start from something.
func TestSeeds(t *testing.T) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzReader/*")
	if err != nil {
		t.Fatal(err)
	}
	if want := len(vectors()); len(seeds) < want {
		t.Errorf("%d seeds in testdata/fuzz/FuzzReader, want at least %d", len(seeds), want)
	}
	for _, seed := range seeds {
		if data, err := os.ReadFile(seed); err != nil || !bytes.HasPrefix(data, []byte("go test fuzz v1\n")) {
			t.Errorf("%s is no seed: %v", seed, err)
		}
	}
}

// mochi's own golden packets, each cut at every byte and with every bit flipped.
func TestMochiNeverPanics(t *testing.T) {
	passed := 0
	for _, group := range packets.TPacketData {
		for _, tc := range group {
			for _, hello := range [][]byte{nil, hello3, hello5} {
				passed += offer(t, hello, tc.RawBytes)
			}
		}
	}
	for _, v := range vectors() {
		passed += offer(t, nil, stream(v.version, v.stream))
	}
	if passed < 1000 {
		t.Errorf("only %d of the streams had a packet passed on: this tests little", passed)
	}
}

func offer(t *testing.T, hello, golden []byte) (passed int) {
	t.Helper()
	if len(golden) > 1000 {
		return 0
	}
	try := func(rest []byte) {
		out, _ := readAll(frame.NewReader(bytes.NewReader(slices.Concat(hello, rest)), limits()))
		mochiAccepts(t, out)
		if len(out) > len(hello) {
			passed++
		}
	}
	try(golden)
	for i := range golden {
		try(golden[:i])
		for bit := range 8 {
			flipped := slices.Clone(golden)
			flipped[i] ^= 1 << bit
			try(flipped)
		}
	}
	return passed
}
