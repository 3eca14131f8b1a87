package broker_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pinseal/broker"
	"pinseal/internal/boltfile/disktest"
)

// peer is an end of QoS 2 (MQTT 3.1.1 section 4.3.3) that keeps what the protocol asks it to keep, and whose connections end
// at any moment.
type peer struct {
	t       *testing.T
	address string
	name    string
	dice    *rand.Rand
	conn    net.Conn
	in      *bufio.Reader
	left    int // packets until this connection ends
}

func (p *peer) hello() []byte {
	return packet(0x10, str("MQTT"), []byte{4, 0x80, 0, 60}, str("id"), str(p.name))
}

func (p *peer) dial() error {
	c, err := (&net.Dialer{Timeout: timeout}).DialContext(p.t.Context(), "tcp", p.address)
	if err != nil {
		return err
	}
	p.conn, p.in, p.left = c, bufio.NewReader(c), 1+p.dice.IntN(60)
	_ = c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write(p.hello()); err != nil {
		return err
	}
	ack, err := readPacket(p.in)
	if err == nil && ack[3] != 0 {
		err = fmt.Errorf("CONNACK % x", ack)
	}
	return err
}

var errCut = errors.New("the connection ends here")

func (p *peer) send(b []byte) error {
	if p.left--; p.left < 0 {
		_ = p.conn.Close()
		return errCut
	}
	_, err := p.conn.Write(b)
	return err
}

// goOn goes on over one connection after another until once says that it is done.
func (p *peer) goOn(once func() (done bool, err error)) {
	var last error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		done := false
		if last = p.dial(); last == nil {
			done, last = once()
		}
		if p.conn != nil {
			_ = p.conn.Close()
		}
		if done {
			return
		}
	}
	p.t.Errorf("%s did not come to its end, at last: %v", p.name, last)
}

// sender publishes the numbers up to exchangeMessages, six of them at a time.
type sender struct {
	peer
	next     int
	order    []uint16
	payloads map[uint16]int
	received map[uint16]bool
}

func (s *sender) publish(id uint16, dup byte) error {
	head := binary.BigEndian.AppendUint16(nil, id)
	return s.send(packet(0x34|dup, str("t/"+s.name), head, []byte(strconv.Itoa(s.payloads[id]))))
}

func (s *sender) once() (bool, error) {
	for _, id := range s.order {
		var err error
		if s.received[id] {
			err = s.send(packet(0x62, binary.BigEndian.AppendUint16(nil, id)))
		} else {
			err = s.publish(id, 8)
		}
		if err != nil {
			return false, err
		}
	}
	for {
		for len(s.order) < 6 && s.next < exchangeMessages {
			id := uint16(1 + s.next%9)
			if _, taken := s.payloads[id]; taken {
				break
			}
			s.payloads[id] = s.next
			s.next++
			s.order = append(s.order, id)
			if err := s.publish(id, 0); err != nil {
				return false, err
			}
		}
		if len(s.order) == 0 {
			return true, nil
		}
		m, err := readPacket(s.in)
		if err != nil {
			return false, err
		}
		id := binary.BigEndian.Uint16(m[2:])
		switch m[0] {
		case 0x50:
			s.received[id] = true
			if err := s.send(packet(0x62, m[2:4])); err != nil {
				return false, err
			}
		case 0x70:
			delete(s.received, id)
			delete(s.payloads, id)
			s.order = slices.DeleteFunc(s.order, func(o uint16) bool { return o == id })
		default:
			s.t.Errorf("%s received % x", s.name, m)
		}
	}
}

// receiver takes all that the senders publish.
type receiver struct {
	peer
	most int // in all
	got  map[string][]int
	n    int
	held map[uint16]bool
}

func (r *receiver) once() (bool, error) {
	if err := r.send(packet(0x82, []byte{0, 1}, str("t/#"), []byte{2})); err != nil {
		return false, err
	}
	asked := false
	for {
		if r.n == r.most && len(r.held) == 0 && !asked {
			asked = true
			if err := r.send([]byte{0xc0, 0}); err != nil {
				return false, err
			}
		}
		m, err := readPacket(r.in)
		if err != nil {
			return false, err
		}
		switch m[0] {
		case 0x34, 0x3c:
			size := int(m[3])
			topic, id := string(m[4:4+size]), binary.BigEndian.Uint16(m[4+size:])
			if !r.held[id] {
				r.held[id] = true
				n, _ := strconv.Atoi(string(m[6+size:]))
				r.got[topic] = append(r.got[topic], n)
				r.n++
			}
			err = r.send(packet(0x50, m[4+size:6+size]))
		case 0x62:
			delete(r.held, binary.BigEndian.Uint16(m[2:]))
			err = r.send(packet(0x70, m[2:4]))
		case 0x90:
		case 0xd0:
			return true, nil // nothing is left behind
		default:
			r.t.Errorf("%s received % x", r.name, m)
		}
		if err != nil {
			return false, err
		}
	}
}

// QoS 2 is exactly once, whatever connections end and however often the disk is full. Without a full disk the order is kept;
// with one, what is refused comes again behind what was taken after it.
func TestExactlyOnce(t *testing.T) {
	for name, full := range map[string]bool{"connections end": false, "and the disk runs full": true} {
		t.Run(name, func(t *testing.T) {
			d := &disktest.Disk{}
			s := start(t, func(c *broker.Config) {
				keeping(filepath.Join(t.TempDir(), "broker.db"))(c)
				c.Persistence.OpenFile, c.Limits.MaxConnectRate = d.Open, 1<<20
				plain(c)
				c.Listeners[0].Authenticate = anyName
			})
			receivers := s.exchange(t, func(ended <-chan struct{}) {
				if full {
					s.runsFull(t, d, ended)
				}
			})
			for _, r := range receivers {
				for n := range exchangeSenders {
					topic := fmt.Sprint("t/s", n)
					got := r.got[topic]
					if full {
						slices.Sort(got)
					}
					for i := range exchangeMessages {
						if i >= len(got) || got[i] != i {
							t.Fatalf("%s has of %s %d messages, number %d is wrong: ...%d", r.name, topic, len(got), i, got[max(0, i-3):min(len(got), i+12)])
						}
					}
				}
			}
			if n := s.Stats().StoredMessages; n != 0 {
				t.Errorf("%d messages are left", n)
			}
		})
	}
}

const exchangeSenders, exchangeReceivers, exchangeMessages = 3, 2, 150

// exchange lets senders and receivers do their work while disturb goes on until it is told that they have ended.
func (s *site) exchange(t *testing.T, disturb func(ended <-chan struct{})) []*receiver {
	t.Helper()
	end := func(name string) peer {
		return peer{t: t, address: s.addr, name: name, dice: rand.New(rand.NewPCG(rand.Uint64(), 0))}
	}
	var all sync.WaitGroup
	var receivers []*receiver
	for n := range exchangeReceivers {
		r := &receiver{peer: end(fmt.Sprint("r", n)), most: exchangeSenders * exchangeMessages, got: map[string][]int{}, held: map[uint16]bool{}}
		receivers = append(receivers, r)
		c := dialPlain(t, "tcp", s.addr)
		if code := connack(t, c, r.hello()); code != 0 {
			t.Fatalf("CONNACK %d", code)
		}
		if _, err := c.Write(packet(0x82, []byte{0, 1}, str("t/#"), []byte{2})); err != nil {
			t.Fatal(err)
		}
		must(readPacket(c))(t)
		_ = c.Close()
		all.Go(func() { r.goOn(r.once) })
	}
	for n := range exchangeSenders {
		p := &sender{peer: end(fmt.Sprint("s", n)), payloads: map[uint16]int{}, received: map[uint16]bool{}}
		all.Go(func() { p.goOn(p.once) })
	}
	ended := make(chan struct{})
	go func() {
		all.Wait()
		close(ended)
	}()
	disturb(ended)
	<-ended
	return receivers
}

// runsFull fills the disk again and again for as long as it takes the broker to notice.
func (s *site) runsFull(t *testing.T, d *disktest.Disk, ended <-chan struct{}) {
	t.Helper()
	until := func(condition func() bool) (met bool) {
		for !condition() {
			select {
			case <-ended:
				return false
			case <-time.After(time.Millisecond):
			}
		}
		return true
	}
	for n := 1; ; n++ {
		received := s.Stats().Received
		if !until(func() bool { return s.Stats().Received > received+50 }) {
			return
		}
		d.Fill(t)
		noticed := until(func() bool { return strings.Count(s.log.String(), "cannot store") == n })
		d.MakeRoom()
		if !noticed || !until(func() bool { return strings.Count(s.log.String(), "stored again") == n }) {
			return
		}
	}
}
