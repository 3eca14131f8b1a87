package main

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"pinseal/agent"
	"pinseal/agent/outbox"
	"pinseal/internal/mqtt"
	"pinseal/signing"
)

const (
	// receiveAtMost is how long the receiving node lives at most once both ends are there, or it has sent a receipt. Those
	// are 200 ms apart.
	receiveAtMost = 250 * time.Millisecond
	// putAtMost is the longest between two messages.
	putAtMost = 16 * time.Millisecond
)

// putter keeps a message in an outbox.
type putter func(b *outbox.Box, m outbox.Message) error

// receipts ends the receiving node by SIGKILL at random moments while the outbox of a sensor sends it telemetry, and an
// application whose session outlives its connections reads the verified values. put is Box.Put.
func receipts(ctx context.Context, l *lab, put putter) (_ []*row, err error) {
	r := newRow("SIGKILL of the receiving node under a sensor's outbox: lost, no receipt, twice or disordered without a kill since it was sent")
	n, err := newNode(ctx, l, filepath.Join(l.dir, "receipts"), unchanged)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	m, err := newMail(l, r, n)
	if err != nil {
		return nil, err
	}
	defer func() { m.leaving.Wait(); err = errors.Join(err, m.box.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	var running, writing sync.WaitGroup
	defer running.Wait()
	defer writing.Wait()
	defer cancel()
	running.Go(func() { m.box.Run(ctx, m.publish) })
	stop := make(chan struct{})
	writing.Go(func() { m.write(ctx, put, stop) })
	for kill := range l.receiverKills {
		l.tell("receipts: %d of %d", kill, l.receiverKills)
		if err := m.live(ctx, kill); err != nil {
			return []*row{r}, err
		}
		r.try(1)
	}
	close(stop)
	writing.Wait()
	return []*row{r}, m.lastLife(ctx)
}

// mail is the experiment: both ends, and what became of every value. Those are numbers from 0 on.
type mail struct {
	*lab
	row         *row
	node        *node
	sender, app *party
	keys        *signing.Keyring
	box         *outbox.Box
	heard       chan struct{}  // a receipt, or a value
	leaving     sync.WaitGroup // clients of a node that is gone

	mu       sync.Mutex
	client   *mqtt.Client // the sender's, nil while there is no connection
	handed   []*handover  // and not confirmed by the broker, in order
	life     int          // of the node, from 1
	values   []fate
	byNumber map[uint64]int
	newest   map[string]int // by topic, of the values that were seen
	again    int            // values that came once more after a kill
	late     int            // and after newer ones
	told     int            // the life of the latest receipt
}

// fate is in which life a value was first sent, seen by the application, and acknowledged to its sender; 0: not yet.
type fate struct{ sent, seen, receipt int }

// handover is a message that a node's connection has and hands over again after a loss.
type handover struct {
	outbox.Message
	done func(error)
}

func newMail(l *lab, r *row, n *node) (*mail, error) {
	m := &mail{lab: l, row: r, node: n, heard: make(chan struct{}, 1), byNumber: map[uint64]int{}, newest: map[string]int{}}
	var errs [4]error
	m.sender, errs[0] = n.party(sensor)
	m.app, errs[1] = n.party(operator)
	m.keys, errs[2] = signing.ReadKeyring(n.path("bundles", sensor, "signers"))
	m.box, errs[3] = outbox.Open(n.path("outbox.db"), outbox.Options{Rate: 1e5})
	return m, errors.Join(errs[:]...)
}

// live is one run of the node, ended by SIGKILL: during the start, soon after it, or soon after a receipt.
func (m *mail) live(ctx context.Context, kill int) error {
	if kill%startEvery == startEvery-1 {
		if err := m.node.spawn(ctx); err != nil {
			return err
		}
		sleep(startAtMost)
		return m.node.end(syscall.SIGKILL)
	}
	leave, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := m.await(func() bool { return kill%2 == 0 || m.told == m.life }); err != nil {
		return err
	}
	sleep(receiveAtMost)
	return m.node.end(syscall.SIGKILL)
}

// someOf is a random length of time.
func someOf(atMost time.Duration) time.Duration { return rand.N(atMost) } //nolint:gosec // not for keys

func sleep(atMost time.Duration) { time.Sleep(someOf(atMost)) }

// begin starts the node and connects both ends to it.
func (m *mail) begin(ctx context.Context) (leave func(), err error) {
	if err := m.node.start(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.life++
	m.mu.Unlock()
	application, err := m.app.connect(ctx, "app", m.read, "verified/"+sensor+"/+")
	if err != nil {
		return nil, err
	}
	client, err := m.sender.connect(ctx, "", m.answer, agent.ReceiptTopic(nodeName, sensor), verdictsTo(sensor))
	if err != nil {
		return nil, errors.Join(err, application.Close())
	}
	m.mu.Lock()
	m.client = client
	for _, h := range m.handed {
		m.send(h)
	}
	m.mu.Unlock()
	m.box.Again()
	return func() {
		m.mu.Lock()
		m.client = nil
		m.mu.Unlock()
		m.leaving.Go(func() { _ = client.Close() }) // nobody listens any more
		m.leaving.Go(func() { _ = application.Close() })
	}, nil
}

// connect connects with a session of that name, or one that ends with the connection.
func (p *party) connect(ctx context.Context, session string, hear func(mqtt.Message), filters ...string) (*mqtt.Client, error) {
	cfg := mqtt.Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: p.tls}).DialContext(ctx, "tcp", p.address)
		},
		ClientID: session, CleanSession: session == "",
		OnMessage: func(m mqtt.Message, ack func()) { hear(m); ack() },
	}
	for _, filter := range filters {
		cfg.Subscriptions = append(cfg.Subscriptions, mqtt.Subscription{Filter: filter, QoS: 1})
	}
	return mqtt.Connect(ctx, cfg)
}

// write puts values until stop.
func (m *mail) write(ctx context.Context, put putter, stop <-chan struct{}) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-stop:
			return
		case <-ctx.Done():
			return
		}
		m.post(put)
		pause.Reset(someOf(putAtMost))
	}
}

// post puts the next value, on one topic and the other in turns.
func (m *mail) post(put putter) {
	m.mu.Lock() // so that nobody hears of a value before it is noted
	defer m.mu.Unlock()
	value := len(m.values)
	topic := []string{sensorTopic, "telemetry/" + sensor + "/door"}[value%2]
	number, raw, err := m.sender.seal(topic, strconv.Itoa(value), time.Now())
	m.values, m.byNumber[number] = append(m.values, fate{}), value
	if err == nil {
		err = put(m.box, outbox.Message{Topic: topic, Number: number, Sealed: raw})
	}
	if err != nil {
		m.row.fail("value %d is not kept: %v", value, err)
	}
}

// publish is what the outbox sends with.
func (m *mail) publish(letter outbox.Message, done func(error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := &handover{letter, done}
	m.handed = append(m.handed, h)
	if m.client != nil {
		m.send(h)
	}
}

// send hands a message to the broker. What that does not confirm is sent again over the next connection. m.mu is held.
func (m *mail) send(h *handover) {
	if f := &m.values[m.byNumber[h.Number]]; f.sent == 0 {
		f.sent = m.life
	}
	m.client.PublishAsync(mqtt.Message{Topic: h.Topic, Payload: h.Sealed, QoS: 1}, func(err error) {
		if err != nil {
			return
		}
		m.mu.Lock()
		m.handed = slices.DeleteFunc(m.handed, func(other *handover) bool { return other == h })
		m.mu.Unlock()
		h.done(nil)
	})
}

// answer hears receipts and verdicts, as a node does.
func (m *mail) answer(from mqtt.Message) {
	sealed, _, err := signing.Open(from.Payload, from.Topic, m.keys)
	if err != nil {
		m.row.fail("an answer that is not genuine: %v", err)
		return
	}
	if from.Topic == verdictsTo(sensor) {
		v, err := agent.ParseVerdict(sealed.JSON())
		if err != nil || v.Reason != signing.ReasonDuplicate && v.Reason != signing.ReasonReplay {
			m.row.fail("answered with %s (%s), %v", v.Reason, v.Detail, err)
		}
		m.box.Refused(v.Topic, v.Sequence, v.Reason)
		m.acknowledged(v.Sequence)
		return
	}
	r, err := agent.ParseReceipt(sealed.JSON())
	if err != nil || r.KeyID != m.sender.key.Public().ID() {
		m.row.fail("a receipt for %q: %v", r.KeyID, err)
	}
	for _, accepted := range r.Accepted {
		for _, number := range accepted.Sequences {
			m.box.Accepted(accepted.Topic, number)
			m.acknowledged(number)
		}
	}
}

func (m *mail) acknowledged(number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := m.byNumber[number]
	switch {
	case !ok:
		m.row.fail("number %d is acknowledged, which nobody used", number)
		return
	case m.values[value].receipt == 0:
		m.values[value].receipt = m.life
	}
	m.told = m.life
	m.wake()
}

// read takes a value as the application gets it. A kill disturbs only what was on its way: that may come once more,
// because it had not been acknowledged to its sender, or by the application to the broker, and after newer values.
func (m *mail) read(got mqtt.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.wake()
	value, err := strconv.Atoi(string(got.Payload))
	if err != nil || value < 0 || value >= len(m.values) {
		m.row.fail("a value that nobody sent: %s", got.Payload)
		return
	}
	f := &m.values[value]
	switch {
	case f.seen == 0:
		switch newest := m.newest[got.Topic]; {
		case value >= newest:
			m.newest[got.Topic] = value
		case f.sent == m.life:
			m.row.fail("value %d came after %d, without a kill since it was sent", value, newest)
		default:
			m.late++
		}
		f.seen = m.life
	case f.sent == m.life:
		m.row.fail("value %d came twice, without a kill since it was sent", value)
	default:
		m.again++
	}
}

// wake tells that something was heard. m.mu is held.
func (m *mail) wake() {
	select {
	case m.heard <- struct{}{}:
	default:
	}
}

// await waits until enough was heard.
func (m *mail) await(enough func() bool) error {
	for {
		m.mu.Lock()
		done := enough()
		m.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-m.heard:
		case <-time.After(patience):
			return errUnanswered
		}
	}
}

// lastLife lets everything arrive that is still to come, and judges: what is acknowledged lies in the application's
// session, in front of what is sent after that.
func (m *mail) lastLife(ctx context.Context) error {
	leave, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := m.await(func() bool { return m.box.Stats().Waiting == 0 }); err != nil {
		return err
	}
	m.post((*outbox.Box).Put)
	m.post((*outbox.Box).Put)
	if err := m.await(m.lastCame); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for value, f := range m.values {
		switch {
		case f.seen == 0:
			m.row.fail("value %d never came", value)
		case f.receipt == 0:
			m.row.fail("value %d was never acknowledged", value)
		}
	}
	m.row.note("%d messages put; of what had not been acknowledged when the node died, %d came once more, %d after newer ones",
		len(m.values), m.again, m.late)
	return m.node.end(syscall.SIGTERM)
}

// lastCame says whether the last value of each topic is all through. m.mu is held.
func (m *mail) lastCame() bool {
	return !slices.ContainsFunc(m.values[len(m.values)-2:], func(f fate) bool { return f.seen == 0 || f.receipt == 0 })
}
