package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errLost means that the connection went away under an exchange.
var errLost = errors.New("the connection to the broker was lost")

// link is one connection: a goroutine that reads, and hands over what it reads, and one that writes. So nothing that
// arrives, and nothing that is to leave, waits for more than one goroutine to wake up.
type link struct {
	cfg  *Config
	conn net.Conn
	in   reader

	wake chan struct{} // holds a token when there may be something to write

	mu      sync.Mutex
	answers []byte  // packets to be written before publications: acknowledgements above all
	goodbye bool    // the last of answers is a DISCONNECT
	outbox  *outbox // what to send; nil until the connection is subscribed
	lastID  uint16
	ids     map[uint16]chan<- []byte // those in use; SUBSCRIBE and UNSUBSCRIBE wait for the codes in the answer
	pinged  *time.Timer              // gives up the broker that does not answer a PINGREQ

	once sync.Once
	err  error         // why it is down; set before down is closed
	down chan struct{} // closed when the connection is no more
}

// dial connects and answers the broker's handshake; it does not subscribe.
func dial(ctx context.Context, cfg *Config) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := cfg.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to the broker: %w", err)
	}
	l := &link{
		cfg: cfg, conn: conn, in: newReader(conn, cfg.MaxPayload), wake: make(chan struct{}, 1),
		ids: make(map[uint16]chan<- []byte), down: make(chan struct{}),
	}
	code, err := l.shakeHandsIn(ctx)
	if err != nil {
		err = fmt.Errorf("connecting to the broker: %w", err)
	} else {
		err = refusal(code)
	}
	if err != nil {
		go func() { _ = conn.Close() }() // TLS says goodbye, which may take its time
		return nil, err
	}
	go l.read()
	go l.write()
	return l, nil
}

// shakeHandsIn is shakeHands, which ends when ctx does. ctx has a deadline.
func (l *link) shakeHandsIn(ctx context.Context) (code byte, err error) {
	deadline, _ := ctx.Deadline()
	if err := l.conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	inTime := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) }) // its error is that of a closed connection
	code, err = l.shakeHands()
	if !inTime() {
		return 0, ctx.Err()
	}
	if err != nil {
		return 0, err
	}
	return code, l.conn.SetDeadline(time.Time{})
}

// shakeHands sends CONNECT and reads CONNACK, which has a code (MQTT 3.1.1, 3.1 and 3.2).
func (l *link) shakeHands() (code byte, err error) {
	if _, err := l.conn.Write(appendConnect(nil, l.cfg)); err != nil {
		return 0, err
	}
	p, err := l.in.next()
	if err != nil {
		return 0, err
	}
	if p.first != typeConnack || len(p.body) != 2 {
		return 0, fmt.Errorf("%w in the place of CONNACK", errMalformed)
	}
	return p.body[1], nil
}

// refusal translates a CONNACK's return code (MQTT 3.1.1, 3.2.2.3).
func refusal(code byte) error {
	switch code {
	case 0:
		return nil
	case 1:
		return ErrBadProtocol
	case 2:
		return ErrIdentifierRejected
	case 3:
		return ErrUnavailable
	case 4:
		return ErrBadCredentials
	case 5:
		return ErrNotAuthorised
	}
	return fmt.Errorf("connecting to the broker: it refuses with the code %d", code)
}

// send writes in the goroutine that calls.
func (l *link) send(packets []byte) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := l.conn.Write(packets)
	return err
}

// read handles what arrives until the connection is lost.
func (l *link) read() {
	for {
		p, err := l.in.next()
		if err == nil {
			err = l.handle(p)
		}
		if err != nil {
			l.lose(err)
			return
		}
	}
}

func (l *link) handle(p packet) error {
	switch kind := p.first & typeMask; kind {
	case typePublish:
		return l.receive(p)
	case typePuback, typePubrec, typePubrel, typePubcomp:
		id, err := p.identifier()
		if err == nil {
			l.acknowledged(kind, id)
		}
		return err
	case typeSuback, typeUnsuback:
		id, err := p.identifier()
		if err == nil {
			l.answered(id, p.body[2:])
		}
		return err
	case typePingresp:
		l.answeredPing()
		return nil
	default:
		return fmt.Errorf("%w of type %d", errMalformed, kind>>4)
	}
}

// receive hands a publication over.
func (l *link) receive(p packet) error {
	m, id, err := p.publication()
	if err != nil {
		return err
	}
	ack := func() {}
	if m.QoS > 0 {
		kind := byte(typePuback)
		if m.QoS == 2 {
			kind = typePubrec
		}
		var told atomic.Bool
		ack = func() {
			if !told.Swap(true) {
				l.answer(kind, id)
			}
		}
	}
	if l.cfg.OnMessage == nil {
		ack()
		return nil
	}
	l.cfg.OnMessage(m, ack)
	return nil
}

// acknowledged takes a step of what the broker and we owe each other about a publication (MQTT 3.1.1, 4.3).
func (l *link) acknowledged(kind byte, id uint16) {
	switch kind {
	case typePubrec:
		l.answer(typePubrel, id)
		return
	case typePubrel:
		l.answer(typePubcomp, id)
		return
	}
	l.mu.Lock()
	box := l.outbox
	l.mu.Unlock()
	if box != nil {
		box.confirm(l, kind, id)
	}
}

// answer has an acknowledgement written, in the order of the calls. It does not block. What waits is bounded by what the
// broker sends unacknowledged, and by the time that a write may take.
func (l *link) answer(kind byte, id uint16) {
	l.mu.Lock()
	if !l.goodbye {
		l.answers = appendAck(l.answers, kind, id)
	}
	l.mu.Unlock()
	l.stir()
}

// stir wakes the goroutine that writes, which may be awake.
func (l *link) stir() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// write writes what there is until the connection is lost or closed.
func (l *link) write() {
	ping := time.NewTicker(l.cfg.KeepAlive)
	defer ping.Stop()
	var packets []byte
	for {
		packets = l.next(packets[:0])
		if len(packets) > 0 {
			if err := l.send(packets); err != nil {
				l.lose(fmt.Errorf("sending: %w", err))
				return
			}
			if l.sent() {
				l.ended(ErrClosed)
				return
			}
			if cap(packets) > maxBatch {
				packets = nil
			}
			continue
		}
		select {
		case <-l.wake:
		case <-ping.C:
			l.ping()
		case <-l.down:
			return
		}
	}
}

// maxBatch is about how many bytes of messages leave together.
const maxBatch = 32 << 10

// next appends what is to be written now.
func (l *link) next(packets []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	packets = append(packets, l.answers...)
	l.answers = l.answers[:0]
	if l.outbox == nil || l.goodbye {
		return packets
	}
	return l.outbox.next(l, packets)
}

// sent notes that what was taken last was written, and reports whether it was the end.
func (l *link) sent() (last bool) {
	l.mu.Lock()
	box, last := l.outbox, l.goodbye && len(l.answers) == 0
	l.mu.Unlock()
	if box != nil {
		box.written(l)
	}
	return last
}

// ping asks the broker whether it is there (MQTT 3.1.1, 3.12).
func (l *link) ping() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pinged == nil && !l.goodbye {
		l.answers = append(l.answers, typePingreq, 0)
		l.pinged = time.AfterFunc(writeTimeout, func() { l.lose(errors.New("the broker does not answer a ping")) })
	}
}

func (l *link) answeredPing() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pinged != nil {
		l.pinged.Stop()
		l.pinged = nil
	}
}

// feed has the link send what is in the outbox.
func (l *link) feed(b *outbox) {
	l.mu.Lock()
	l.outbox = b
	l.mu.Unlock()
	b.attach(l)
}

// newID takes an identifier that is not in use. l.mu is held. There are more than can be under way.
func (l *link) newID(answer chan<- []byte) uint16 {
	for taken := true; taken; {
		if l.lastID++; l.lastID == 0 {
			l.lastID = 1
		}
		_, taken = l.ids[l.lastID]
	}
	l.ids[l.lastID] = answer
	return l.lastID
}

func (l *link) freeID(id uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ids, id)
}

// ask sends a packet that needs an answer, which request appends.
func (l *link) ask(request func(to []byte, id uint16) []byte) <-chan []byte {
	answer := make(chan []byte, 1)
	l.mu.Lock()
	l.answers = request(l.answers, l.newID(answer))
	l.mu.Unlock()
	l.stir()
	return answer
}

// answered hands an answer to who asked.
func (l *link) answered(id uint16, codes []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if answer := l.ids[id]; answer != nil {
		answer <- codes // has room
		delete(l.ids, id)
	}
}

// refused is the return code of a subscription that was not granted (MQTT 3.1.1, 3.9.3).
const refused = 0x80

func (l *link) subscribe(ctx context.Context, subs []Subscription) error {
	if len(subs) == 0 {
		return nil
	}
	codes, err := l.await(ctx, l.ask(func(to []byte, id uint16) []byte { return appendSubscribe(to, id, subs) }))
	if err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	for i, sub := range subs {
		if i >= len(codes) || codes[i] >= refused {
			return fmt.Errorf("%w to %s", ErrSubscriptionRefused, sub.Filter)
		}
	}
	return nil
}

func (l *link) unsubscribe(ctx context.Context, filters []string) error {
	if len(filters) == 0 {
		return nil
	}
	if _, err := l.await(ctx, l.ask(func(to []byte, id uint16) []byte { return appendUnsubscribe(to, id, filters) })); err != nil {
		return fmt.Errorf("unsubscribing: %w", err)
	}
	return nil
}

// await waits for the broker's answer. One that does not come costs the connection.
func (l *link) await(ctx context.Context, answer <-chan []byte) ([]byte, error) {
	timeout := time.NewTimer(connectTimeout)
	defer timeout.Stop()
	select {
	case codes := <-answer:
		return codes, nil
	case <-l.down:
		return nil, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timeout.C:
		l.lose(errors.New("the broker does not answer"))
		return nil, l.err
	}
}

// lose gives the connection up.
func (l *link) lose(err error) { l.ended(fmt.Errorf("%w: %w", errLost, err)) }

// close ends the connection with a goodbye, after the acknowledgements that wait.
func (l *link) close() {
	l.mu.Lock()
	l.answers = append(l.answers, typeDisconnect, 0)
	l.goodbye = true
	l.mu.Unlock()
	l.stir()
	select {
	case <-l.down:
	case <-time.After(closeTimeout):
		l.ended(ErrClosed)
	}
}

func (l *link) ended(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.down)
		l.answeredPing()                   // nobody asks any more
		go func() { _ = l.conn.Close() }() // TLS says goodbye, which may take its time; the connection is of no use any more
	})
}
