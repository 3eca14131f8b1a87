package mqtt

import "io"

// ReadPublication reads one packet as a client with a limit does. ok is false for a packet that is no publication.
func ReadPublication(from io.Reader, maxPayload int) (m Message, id uint16, ok bool, err error) {
	r := newReader(from, maxPayload)
	p, err := r.next()
	if err != nil || p.first&typeMask != typePublish {
		return m, 0, false, err
	}
	m, id, err = p.publication()
	return m, id, err == nil, err
}

// EncodePublication is what a client writes.
func EncodePublication(m Message, id uint16) []byte { return appendPublish(nil, &m, id) }
