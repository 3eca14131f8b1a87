package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pinseal/internal/load"

	"golang.org/x/sync/errgroup"
)

// traffic is who sends what to whom.
type traffic struct {
	publishers, subscribers int
	qos                     byte
	bytes                   int
}

func (t traffic) String() string {
	return fmt.Sprintf("%d → %d, QoS %d, %d B", t.publishers, t.subscribers, t.qos, t.bytes)
}

func traffics() (list []traffic) {
	for _, parties := range [][2]int{{1, 1}, {100, 1}, {1, 200}} {
		for qos := range byte(2) {
			for _, bytes := range []int{64, 1024} {
				list = append(list, traffic{parties[0], parties[1], qos, bytes})
			}
		}
	}
	return list
}

const (
	warmUp  = 300 * time.Millisecond
	measure = time.Second
	// onTheirWay is how many deliveries may be: fewer than mosquitto drops for one subscriber, and for many not more
	// than fit into the sockets.
	onTheirWay, onTheirWayEach = 500, 20

	idleConnections = 1000
	settleTime      = 2 * time.Second // for what idles to be idle
	handshakers     = 4
	crowding        = 32
)

// cost is what one measurement of a broker gave.
type cost struct {
	perSecond float64       // or KiB, for memory
	processor time.Duration // of the broker, for each
}

// traffic measures the deliveries of a traffic.
func (l *life) traffic(ctx context.Context, t traffic) (cost, error) {
	g := &generator{traffic: t, delivered: make([]atomic.Int64, t.publishers), wake: make([]chan struct{}, t.publishers)}
	for i := range g.wake {
		g.wake[i] = make(chan struct{}, 1)
	}
	defer g.close()
	if err := g.connect(ctx, l); err != nil {
		return cost{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var senders sync.WaitGroup
	for i := range t.publishers {
		senders.Go(func() { g.send(ctx, i) })
	}
	defer senders.Wait()
	defer cancel()
	pause(ctx, warmUp)
	from, begin := g.count(), time.Now()
	before, errBefore := l.processorTime()
	pause(ctx, measure)
	to, took := g.count(), time.Since(begin)
	after, errAfter := l.processorTime()
	if to == from {
		return cost{}, fmt.Errorf("%v: nothing was delivered", t)
	}
	return cost{float64(to-from) / took.Seconds(), (after - before) / time.Duration(to-from)}, errors.Join(errBefore, errAfter)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// generator is both ends of a traffic. The first bytes of a message say who sent it.
type generator struct {
	traffic
	publishers, listeners []*load.Client
	delivered             []atomic.Int64 // by publisher
	wake                  []chan struct{}
}

func (g *generator) connect(ctx context.Context, l *life) (err error) {
	subscribe := load.Options{ID: "sub", Filters: []string{"bench/#"}, QoS: g.qos, Hear: func(_, payload []byte) { g.hear(payload) }}
	if g.listeners, err = l.crowd(ctx, g.subscribers, subscribe); err != nil {
		return err
	}
	g.publishers, err = l.crowd(ctx, g.traffic.publishers, load.Options{ID: "pub"})
	return err
}

// crowd connects so many clients, whose names it numbers. mosquitto takes 40 ms for each, most of which it waits, so
// that more are connected at a time than there are processors.
func (l *life) crowd(ctx context.Context, n int, o load.Options) ([]*load.Client, error) {
	clients := make([]*load.Client, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(crowding)
	for i := range clients {
		group.Go(func() (err error) {
			own := o
			own.ID = fmt.Sprint(o.ID, i)
			clients[i], err = dial(ctx, l.address, l.tls, own)
			return err
		})
	}
	err := group.Wait()
	return slices.DeleteFunc(clients, func(c *load.Client) bool { return c == nil }), err
}

func (g *generator) hear(payload []byte) {
	i := binary.BigEndian.Uint16(payload)
	g.delivered[i].Add(1)
	select {
	case g.wake[i] <- struct{}{}:
	default: // it is awake
	}
}

func (g *generator) count() (sum int64) {
	for i := range g.delivered {
		sum += g.delivered[i].Load()
	}
	return sum
}

// send keeps so many messages of one publisher on their way until ctx ends.
func (g *generator) send(ctx context.Context, i int) {
	message := binary.BigEndian.AppendUint16(nil, uint16(i)) //nolint:gosec // at most 100
	message = append(message, make([]byte, g.bytes-len(message))...)
	window := max(onTheirWay/g.traffic.publishers, 1)
	if g.subscribers > 1 {
		window = onTheirWayEach
	}
	publish := g.publishers[i].PublishOnce
	if g.qos > 0 {
		publish = g.publishers[i].Publish
	}
	topic := fmt.Sprintf("bench/%d", i)
	for sent := 0; ; {
		if free := window - (sent - int(g.delivered[i].Load())/g.subscribers); free > 0 {
			batch := make([][]byte, free)
			for n := range batch {
				batch[n] = message
			}
			if publish(topic, batch...) != nil {
				return
			}
			sent += free
		}
		select {
		case <-ctx.Done():
			return
		case <-g.wake[i]:
		}
	}
}

func (g *generator) close() {
	for _, c := range append(g.publishers, g.listeners...) {
		c.Close()
	}
}

// handshakes counts whole connects: TCP, mutual TLS without resumption, CONNECT and CONNACK.
func (l *life) handshakes(ctx context.Context) (cost, error) {
	ctx, cancel := context.WithTimeout(ctx, measure)
	defer cancel()
	var count atomic.Int64
	before, errBefore := l.processorTime()
	begin := time.Now()
	group, _ := errgroup.WithContext(ctx)
	for i := range handshakers {
		group.Go(func() error {
			for ctx.Err() == nil {
				c, err := dial(context.WithoutCancel(ctx), l.address, l.tls, load.Options{ID: fmt.Sprint("hand", i)})
				if err != nil {
					return err
				}
				c.Close()
				count.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	took := time.Since(begin)
	after, errAfter := l.processorTime()
	n := count.Load()
	return cost{float64(n) / took.Seconds(), (after - before) / time.Duration(max(n, 1))}, errors.Join(err, errBefore, errAfter)
}

// idleMemory is what a connection adds that has nothing to say, in KiB.
func (l *life) idleMemory(ctx context.Context) (cost, error) {
	before, err := l.residentKiB()
	if err != nil {
		return cost{}, err
	}
	clients, err := l.crowd(ctx, idleConnections, load.Options{ID: "idle"})
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	if err != nil {
		return cost{}, err
	}
	pause(ctx, settleTime)
	after, err := l.residentKiB()
	return cost{perSecond: float64(after-before) / idleConnections}, err
}

// brokers measures both brokers by turns: each row whose name has the text in it, of one and then of the other.
func (r brokerResults) brokers(ctx context.Context, us, them *stack, row string, tell func(string)) (err error) {
	lives := make([]*life, 0, 2)
	defer func() {
		for _, l := range lives {
			err = errors.Join(err, l.stop())
		}
	}()
	for _, s := range []*stack{us, them} {
		l, err := s.spawn(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		lives = append(lives, l)
		if err := l.listening(ctx); err != nil {
			return explain(err, s)
		}
	}
	for _, m := range measurements() {
		if !strings.Contains(m.row, row) {
			continue
		}
		for _, l := range lives {
			tell(l.name + ", " + m.row)
			c, err := m.take(l, ctx)
			if err != nil {
				return explain(err, l.stack)
			}
			r.add(l.name, m.row, c)
		}
	}
	return nil
}

// measurement is a row of the table.
type measurement struct {
	row  string
	take func(l *life, ctx context.Context) (cost, error)
}

// measurements begin with the memory, before anything else has grown the heaps.
func measurements() []measurement {
	list := []measurement{{rowIdle, (*life).idleMemory}}
	for _, t := range traffics() {
		list = append(list, measurement{t.String(), func(l *life, ctx context.Context) (cost, error) { return l.traffic(ctx, t) }})
	}
	return append(list, measurement{rowHandshakes, (*life).handshakes})
}

// listening waits until the broker lets a client in.
func (l *life) listening(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := dial(ctx, l.address, l.tls, load.Options{ID: "first"})
	if err != nil {
		return err
	}
	c.Close()
	return nil
}

// mosquittoAlone is the replaced stack without its agent.
func mosquittoAlone(them *stack) *stack {
	alone := *them
	alone.name, alone.processes = nameMosquitto, them.processes[:1]
	alone.log = filepath.Join(filepath.Dir(them.log), "alone.log")
	return &alone
}
