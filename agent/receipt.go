package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"pinseal/signing"
)

// ReceiptTopic is where the node tells a signer what telemetry of its it has accepted.
func ReceiptTopic(node, signer string) string { return "pinseal/" + node + "/receipt/" + signer }

// Receipt says what telemetry of a key the node has accepted lately: the msg of a sealed message on [ReceiptTopic].
type Receipt struct {
	KeyID    string             `json:"kid"`
	Accepted []AcceptedMessages `json:"accepted"`
	Time     time.Time          `json:"time"` // by the node's clock, RFC 3339
}

// AcceptedMessages are sequence numbers of a topic, in no order.
type AcceptedMessages struct {
	Topic     string   `json:"topic"`
	Sequences []uint64 `json:"seq"`
}

// ParseReceipt reads a receipt from the JSON of a verified message.
func ParseReceipt(msg []byte) (Receipt, error) {
	var r Receipt
	if err := json.Unmarshal(msg, &r); err != nil {
		return Receipt{}, fmt.Errorf("reading a receipt: %w", err)
	}
	if r.KeyID == "" {
		return Receipt{}, errors.New("reading a receipt: kid is missing")
	}
	return r, nil
}

const (
	// receiptDelay is how long a receipt waits for others to go with.
	receiptDelay = 200 * time.Millisecond
	// maxReceipts bounds what waits. Who gets none sends again, and is told then.
	maxReceipts = 8192
	// receiptBatch is how many numbers of a topic stand together.
	receiptBatch = 512
	// receiptBytes is how much of them one message carries: encrypted to many, it still is a sealed message.
	receiptBytes = 16 << 10
)

// size is as many bytes of JSON as it has at most: < becomes \u003c in a topic.
func (m AcceptedMessages) size() int {
	return len(`{"topic":"","seq":[]},`) + len(`\u003c`)*len(m.Topic) + len("9007199254740991,")*len(m.Sequences)
}

// signerKey is a key and whose it is.
type signerKey struct{ signer, kid string }

// receipts collects what is to be told.
type receipts struct {
	ready chan struct{} // something waits

	mu      sync.Mutex
	closed  bool
	count   int
	waiting map[signerKey][]AcceptedMessages
}

func newReceipts() *receipts {
	return &receipts{ready: make(chan struct{}, 1), waiting: make(map[signerKey][]AcceptedMessages)}
}

// add has a message acknowledged. It does not block.
func (r *receipts) add(id ident, topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.count >= maxReceipts {
		return
	}
	r.count++
	key := signerKey{id.signer, id.kid}
	all := r.waiting[key]
	i := slices.IndexFunc(all, func(m AcceptedMessages) bool { return m.Topic == topic && len(m.Sequences) < receiptBatch })
	if i < 0 {
		r.waiting[key] = append(all, AcceptedMessages{Topic: topic, Sequences: []uint64{id.seq}})
	} else {
		all[i].Sequences = append(all[i].Sequences, id.seq)
	}
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

func (r *receipts) take() map[signerKey][]AcceptedMessages {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.waiting
	r.waiting, r.count = make(map[signerKey][]AcceptedMessages), 0
	return taken
}

// close has sendReceipts send what waits, and end.
func (r *receipts) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	close(r.ready)
}

// sendReceipts seals receipts, those that come within a moment together, until there will be no more.
func (a *Agent) sendReceipts() {
	for open := true; open; {
		if _, open = <-a.receipts.ready; open {
			time.Sleep(receiptDelay)
		}
		for key, accepted := range a.receipts.take() {
			if err := a.sendReceipt(key, accepted); err != nil {
				a.cfg.Log.Error("cannot seal a receipt", "error", err)
			}
		}
	}
}

// sendReceipt sends as many messages as it takes.
func (a *Agent) sendReceipt(key signerKey, accepted []AcceptedMessages) error {
	for len(accepted) > 0 {
		n, size := 0, 0
		for n < len(accepted) && (n == 0 || size+accepted[n].size() <= receiptBytes) {
			size += accepted[n].size()
			n++
		}
		now := a.cfg.Clock.Now()
		msg, err := json.Marshal(Receipt{KeyID: key.kid, Accepted: accepted[:n], Time: now.UTC()})
		if err != nil {
			return err
		}
		number, err := a.reportNumbers.take(now)
		if err != nil {
			return err
		}
		c := signing.Claims{Topic: ReceiptTopic(a.cfg.Node, key.signer), IssuedAt: now, Sequence: number, Message: msg}
		if err := a.publishSealed(c, false, nil); err != nil {
			return err
		}
		accepted = accepted[n:]
	}
	return nil
}

// acknowledge has accepted telemetry acknowledged, if its sender asked for that by its quality of service.
func (a *Agent) acknowledge(j *job, id ident) {
	if j.qos > 0 {
		a.receipts.add(id, j.topic)
	}
}
