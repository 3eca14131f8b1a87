package outbox

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"pinseal/internal/boltfile"
)

// chunk is a group of messages on the disk. Box.mu guards it.
type chunk struct {
	first uint64 // position
	span  int    // positions from the first to the last
	left  int    // of these that wait
	bytes int64  // on the disk
	gone  bool   // is to be deleted

	// Until it is written:
	items []*item
	value []byte
}

func (c *chunk) last() uint64 { return c.first + uint64(c.span) - 1 } //nolint:gosec // not negative

const (
	chunkHeader = 8
	// maxChunk bounds what a damaged chunk can unpack to; a good one is as large as the memory's messages at most.
	maxChunk = 2 * maxMemory
)

// newChunk packs items, which ascend by position and leave out some between.
func newChunk(items []*item, gaps int) (*chunk, error) {
	first := items[0].position
	c := &chunk{first: first, items: items, span: int(items[len(items)-1].position-first) + 1} //nolint:gosec // they lie in memory
	c.left = c.span - gaps
	var packed bytes.Buffer
	packed.Write(make([]byte, chunkHeader))
	w, err := flate.NewWriter(&packed, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	var message []byte
	for _, i := range items {
		if message, err = appendMessage(message[:0], i, first); err != nil {
			return nil, err
		}
		if _, err := w.Write(message); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	c.value = packed.Bytes()
	binary.BigEndian.PutUint32(c.value, uint32(c.span)) //nolint:gosec // as above
	binary.BigEndian.PutUint32(c.value[4:], checksum(c.value[chunkHeader:]))
	c.bytes = int64(len(c.value))
	return c, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// appendMessage packs one message; see the package comment.
func appendMessage(to []byte, i *item, first uint64) ([]byte, error) {
	to = binary.AppendUvarint(to, i.position-first)
	to = binary.AppendUvarint(to, i.Number)
	to = appendText(to, []byte(i.Topic))
	parts := bytes.Split(i.Sealed, []byte("."))
	if len(parts) != 3 {
		return nil, fmt.Errorf("a message of %d parts is not sealed", len(parts))
	}
	for _, part := range parts {
		// Strict, so that what is unpacked is what was packed.
		plain, err := base64.RawURLEncoding.Strict().AppendDecode(nil, part)
		if err != nil {
			return nil, fmt.Errorf("packing a sealed message: %w", err)
		}
		to = appendText(to, plain)
	}
	return to, nil
}

func appendText(to, text []byte) []byte {
	return append(binary.AppendUvarint(to, uint64(len(text))), text...)
}

// parseChunkHeader reads what can be told without unpacking.
func parseChunkHeader(first uint64, value []byte) (*chunk, error) {
	if len(value) < chunkHeader {
		return nil, boltfile.ErrDamaged
	}
	span := binary.BigEndian.Uint32(value)
	if span == 0 || span > maxChunk || first == 0 || first+uint64(span) < first {
		return nil, boltfile.ErrDamaged
	}
	return &chunk{first: first, span: int(span), left: int(span), bytes: int64(len(value))}, nil
}

// unpack reads the messages of a chunk.
func (c *chunk) unpack(value []byte) ([]*item, error) {
	if len(value) < chunkHeader || binary.BigEndian.Uint32(value[4:]) != checksum(value[chunkHeader:]) {
		return nil, boltfile.ErrDamaged
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(value[chunkHeader:])), maxChunk+1))
	if err != nil || len(plain) > maxChunk {
		return nil, boltfile.ErrDamaged
	}
	var items []*item
	for r := (reader{plain}); len(r.rest) > 0; {
		i, err := r.message(c)
		if err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, nil
}

// reader takes messages from unpacked bytes.
type reader struct{ rest []byte }

func (r *reader) message(c *chunk) (*item, error) {
	after, ok1 := r.number()
	number, ok2 := r.number()
	topic, ok3 := r.text()
	i := &item{Message: Message{Topic: string(topic), Number: number}, position: c.first + after, chunk: c}
	ok := ok1 && ok2 && ok3 && i.position <= c.last() && i.position >= c.first
	for n := range 3 {
		part, there := r.text()
		ok = ok && there
		if n > 0 {
			i.Sealed = append(i.Sealed, '.')
		}
		i.Sealed = base64.RawURLEncoding.AppendEncode(i.Sealed, part)
	}
	if !ok {
		return nil, boltfile.ErrDamaged
	}
	return i, nil
}

func (r *reader) number() (uint64, bool) {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		return 0, false
	}
	r.rest = r.rest[size:]
	return n, true
}

func (r *reader) text() ([]byte, bool) {
	length, ok := r.number()
	if !ok || length > uint64(len(r.rest)) {
		return nil, false
	}
	text := r.rest[:length]
	r.rest = r.rest[length:]
	return text, true
}
