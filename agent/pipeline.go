package agent

import (
	"sync"
	"time"

	"pinseal/agent/actuator"
	"pinseal/signing"
	"pinseal/signing/boxtec"
)

// queueBytes bounds the messages of one topic that are under way.
const queueBytes = 4 << 20

// job is a message under way.
type job struct {
	topic   string
	payload []byte
	qos     byte
	ack     func()
	route   *route
	policy  *policy
	trace   *journey

	// One of these is set on the way in.
	sealed   *signing.Sealed
	legacy   *LegacyKey
	unsigned actuator.Command // a plain message has only this

	signer signing.Signer

	verified chan struct{} // closed when the following are set
	message  *signing.Message
	old      *boxtec.Message
	value    []byte    // what the message says, once it was opened
	fresh    time.Time // when a trusted clock said that it is; zero: none has
	err      error
}

// verify is step 5.
func (j *job) verify(recent *signing.Recent) {
	defer close(j.verified)
	if j.legacy != nil {
		j.old, j.err = boxtec.Open(j.payload, j.legacy.Key, j.legacy.Hash)
		return
	}
	j.message, j.err = recent.Verify(j.sealed, j.signer.Key)
}

// route is where messages of a topic go.
type route struct {
	queue  topicQueue
	output *output // nil for telemetry
	plain  bool
	own    *signing.PublicKey // of messages to ourselves, nil for all others
}

// topicQueue is the bounded queue of a topic: what is in it is under way until it was acted on or refused.
type topicQueue struct {
	held, bytes int
	unverified  []*job
}

// verifier is the bounded queues and those who take from them: one message of each topic in turn, so that a flood on
// one topic does not keep the others waiting.
type verifier struct {
	length int            // bound of each queue
	recent signing.Recent // replays are cheap

	mu     sync.Mutex
	work   sync.Cond
	turns  []*topicQueue // the queues with unverified messages
	closed bool
}

// admit is step 4.
func (v *verifier) admit(q *topicQueue, j *job) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if q.held >= v.length || q.bytes+len(j.payload) > queueBytes {
		return false
	}
	q.held++
	q.bytes += len(j.payload)
	if j.sealed == nil && j.legacy == nil {
		close(j.verified) // plain: there is nothing to verify
		return true
	}
	if len(q.unverified) == 0 {
		v.turns = append(v.turns, q)
	}
	q.unverified = append(q.unverified, j)
	v.work.Signal()
	return true
}

// release makes room for another message.
func (v *verifier) release(q *topicQueue, j *job) {
	v.mu.Lock()
	defer v.mu.Unlock()
	q.held--
	q.bytes -= len(j.payload)
}

// run verifies until the verifier is closed and empty.
func (v *verifier) run() {
	for {
		j := v.next()
		if j == nil {
			return
		}
		j.verify(&v.recent)
	}
}

func (v *verifier) next() *job {
	v.mu.Lock()
	defer v.mu.Unlock()
	for len(v.turns) == 0 {
		if v.closed {
			return nil
		}
		v.work.Wait()
	}
	q := v.turns[0]
	v.turns = v.turns[1:]
	j := q.unverified[0]
	q.unverified[0] = nil
	q.unverified = q.unverified[1:]
	if len(q.unverified) > 0 {
		v.turns = append(v.turns, q)
	}
	return j
}

func (v *verifier) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	v.work.Broadcast()
}

// fifo hands things from one goroutine to another without ever blocking the first. What bounds it is what is put in.
type fifo[T any] struct {
	mu     sync.Mutex
	filled sync.Cond
	items  []T
	closed bool
}

func newFIFO[T any]() *fifo[T] {
	f := &fifo[T]{}
	f.filled.L = &f.mu
	return f
}

func (f *fifo[T]) put(item T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items = append(f.items, item)
	f.filled.Signal()
}

// take waits for something and returns all there is; nil once it is closed and empty.
func (f *fifo[T]) take() []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.items) == 0 && !f.closed {
		f.filled.Wait()
	}
	items := f.items
	f.items = nil
	return items
}

func (f *fifo[T]) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.filled.Signal()
}
