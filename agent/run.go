package agent

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"pinseal/internal/mqtt"
	"pinseal/signing"
)

// Agent is the node's side of pinseal. Its methods are safe for concurrent use.
type Agent struct {
	cfg       Config
	client    *mqtt.Client
	challenge string
	outputs   map[string]*output
	routes    map[string]*route // of the topics that command outputs
	telemetry *lane
	loopback  *loopback
	verifier  verifier
	verdicts  chan verdict

	reportNumbers stock
	reporting     sync.Mutex // one report at a time
	receipts      *receipts
	remote        *remote // nil: telemetry is for nobody in particular

	policy   atomic.Pointer[policy]
	started  atomic.Bool
	stopping atomic.Bool
	time     *timekeeping
	tracer   atomic.Pointer[Tracer] // waits for its message
	ready    chan struct{}

	announced sync.Once

	presence sync.Mutex // of what is said of it, and of:
	gone     bool       // the last word has been said

	counters map[signing.Reason]*tally
	unjudged *tally
	asking   *rate.Limiter // of software that discovers devices
	reports  latest        // for it
	stats    struct{ telemetry, unjudged, unanswered atomic.Uint64 }

	mu              sync.Mutex
	telemetryRoutes map[string]*route // by filter
	setting         sync.Mutex        // one SetPolicy at a time
}

const (
	defaultQueueLength = 4096
	// subscribeTimeout is how long SetPolicy waits for the broker.
	subscribeTimeout = 5 * time.Second
	// goodbyeTimeout is how long the last messages may take to get to the broker.
	goodbyeTimeout = time.Second
)

// New checks the configuration and makes an agent. It starts nothing and touches no line.
func New(cfg Config) (*Agent, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configuring the agent: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnBroker == nil {
		cfg.OnBroker = func(bool) {}
	}
	if cfg.QueueLength == 0 {
		cfg.QueueLength = defaultQueueLength
	}
	a := &Agent{
		cfg:       cfg,
		challenge: newChallenge(),
		outputs:   make(map[string]*output),
		routes:    make(map[string]*route),
		telemetry: &lane{in: newFIFO[*job]()},
		verdicts:  make(chan verdict, maxVerdicts),
		ready:     make(chan struct{}),
		counters:  make(map[signing.Reason]*tally),
		unjudged:  newTally(),
		asking:    newAsking(),

		reportNumbers: stock{from: cfg.Sequence},
		receipts:      newReceipts(),
		remote:        cfg.newRemote(),
	}
	a.time = a.newTimekeeping()
	a.verifier.length = cfg.QueueLength
	a.verifier.work.L = &a.verifier.mu
	var err error
	if a.loopback, err = newLoopback(cfg.Node); err != nil {
		return nil, fmt.Errorf("configuring the agent: %w", err)
	}
	for _, reason := range signing.Reasons() {
		a.counters[reason] = newTally()
	}
	if err := a.addOutputs(); err != nil {
		return nil, fmt.Errorf("configuring the agent: %w", err)
	}
	p, err := a.compile(cfg.Policy, nil)
	if err != nil {
		return nil, fmt.Errorf("configuring the agent: %w", err)
	}
	a.adopt(p)
	if a.client, err = mqtt.New(a.clientConfig()); err != nil {
		return nil, fmt.Errorf("configuring the agent: %w", err)
	}
	for _, o := range a.outputs {
		a.follow(o)
	}
	return a, nil
}

func newChallenge() string {
	var b [challengeBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (a *Agent) clientConfig() mqtt.Config {
	subs := subscriptions(a.policy.Load().filters())
	for topic := range a.routes {
		subs = append(subs, mqtt.Subscription{Filter: topic, QoS: 1})
	}
	if d := a.cfg.Discovery; d != nil && d.Topic != "" {
		subs = append(subs, mqtt.Subscription{Filter: d.Topic, QoS: 1})
	}
	if a.cfg.OwnBroker {
		subs = append(subs, mqtt.Subscription{Filter: a.loopback.topic, QoS: 1})
	}
	subs = append(subs, a.time.subscriptions()...)
	subs = append(subs, a.remote.subscriptions()...)
	return mqtt.Config{
		Dial:          a.cfg.Dial,
		ClientID:      a.cfg.ClientID,
		Username:      a.cfg.Username,
		CleanSession:  a.cfg.ClientID == "",
		Will:          a.availability(Offline),
		Subscriptions: subs,
		MaxPayload:    signing.MaxSealedBytes,
		OnMessage:     a.receive,
		OnUp:          func() { a.cfg.OnBroker(true); a.announce(); a.time.connected(); a.remote.connected() },
		OnDown:        func(error) { a.cfg.OnBroker(false) },
		Log:           a.cfg.Log,
	}
}

func subscriptions(filters []string) []mqtt.Subscription {
	subs := make([]mqtt.Subscription, 0, len(filters))
	for _, filter := range filters {
		subs = append(subs, mqtt.Subscription{Filter: filter, QoS: 1})
	}
	return subs
}

func (a *Agent) availability(what string) *mqtt.Message {
	return &mqtt.Message{Topic: AvailabilityTopic(a.cfg.Node), Payload: []byte(what), QoS: 1, Retained: true}
}

// announce publishes what stands on the broker about this node.
func (a *Agent) announce() {
	if len(a.outputs) > 0 { // or there is nothing to command
		if err := a.announceChallenge(); err != nil {
			a.cfg.Log.Error("cannot seal the challenge", "error", err)
		}
	}
	a.show()
}

// show publishes what others show of this node, until that is gone.
func (a *Agent) show() {
	a.presence.Lock()
	defer a.presence.Unlock()
	if a.gone { // the connection came back while it said goodbye
		return
	}
	for _, o := range a.outputs {
		a.publishShown(&o.state)
		a.publishShown(&o.status)
	}
	a.discoverable()
	// Last: messages are confirmed in their order.
	a.client.PublishAsync(*a.availability(Online), func(err error) {
		if err == nil {
			a.announced.Do(func() { close(a.ready) })
		}
	})
}

func (a *Agent) announceChallenge() error {
	msg, err := json.Marshal(challengeMessage{a.challenge})
	if err != nil {
		return err
	}
	now := a.cfg.Clock.Now()
	number, err := a.cfg.Sequence.Reserve(now, 1)
	if err != nil {
		return err
	}
	c := signing.Claims{Topic: ChallengeTopic(a.cfg.Node), IssuedAt: now, Sequence: number, Message: msg}
	return a.publishSealed(c, true, nil)
}

// Run connects, and serves until ctx ends. It then finishes the commands it has received, says [Offline] and returns
// nil; no line is touched afterwards, and closing them is the caller's. While the broker cannot be reached Run tries
// again; it returns an error only if the broker answers the very first connection with a refusal. An agent runs once.
func (a *Agent) Run(ctx context.Context) error {
	if !a.started.CompareAndSwap(false, true) {
		return errors.New("the agent has run already")
	}
	stop := a.start()
	timeCtx, stopTime := context.WithCancel(ctx)
	defer stopTime()
	var clocks sync.WaitGroup
	clocks.Go(func() { a.keepTime(timeCtx) })
	clocks.Go(func() { a.runOutbox(timeCtx) })
	connected, err := a.connect(ctx)
	if connected {
		<-ctx.Done()
	}
	stopTime()
	clocks.Wait()
	stop()
	a.goodbye(ctx, connected)
	return err
}

// Ready is closed when the agent is connected and subscribed for the first time, and the broker has confirmed what the
// node announces: the states, the challenge, and that it is online.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// start starts the pipeline. The result stops it, after everything in it is done.
func (a *Agent) start() (stop func()) {
	var verifiers, judges, actors, sealers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		verifiers.Go(a.verifier.run)
	}
	judges.Go(a.judgeTelemetry)
	judges.Go(a.judgeLoopback)
	for _, o := range a.outputs {
		judges.Go(func() { a.judgeCommands(o) })
		actors.Go(func() { a.actOnCommands(o) })
	}
	sealers.Go(a.sendVerdicts)
	sealers.Go(a.sendReceipts)
	return func() {
		a.stopping.Store(true)
		a.telemetry.in.close()
		a.loopback.lane.in.close()
		for _, o := range a.outputs {
			o.lane.in.close()
		}
		judges.Wait()
		for _, o := range a.outputs {
			o.lane.accepted.close()
		}
		actors.Wait()
		a.verifier.close()
		verifiers.Wait()
		close(a.verdicts)
		a.receipts.close()
		sealers.Wait()
	}
}

// connect makes the first connection, however long it takes until the broker is there.
func (a *Agent) connect(ctx context.Context) (connected bool, err error) {
	for wait := 100 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 5*time.Second) {
		err := a.client.Connect(ctx)
		if err == nil || mqtt.Permanent(err) {
			return err == nil, err
		}
		if ctx.Err() == nil {
			a.cfg.Log.Warn("cannot connect to the broker, trying again", "error", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return false, nil
}

// goodbye waits a little for what is on its way to the broker, then disconnects.
func (a *Agent) goodbye(ctx context.Context, connected bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer cancel()
	a.presence.Lock()
	a.gone = true
	a.presence.Unlock()
	if connected {
		if err := a.client.Publish(ctx, *a.availability(Offline)); err != nil {
			a.cfg.Log.Warn("the broker was not told that the node stops", "error", err)
		}
	}
	_ = a.client.Close() // returns no error
}

// SetPolicy puts another policy in place of the present one. Sessions stay; messages already under way are judged by
// the new policy. It waits for the broker to accept new telemetry subscriptions; after an error the old policy stands.
func (a *Agent) SetPolicy(p *Policy) error {
	a.setting.Lock()
	defer a.setting.Unlock()
	old := a.policy.Load()
	next, err := a.compile(p, old)
	if err != nil {
		return fmt.Errorf("changing the policy: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), subscribeTimeout)
	defer cancel()
	added := without(next.filters(), old.filters())
	if err := a.client.Subscribe(ctx, subscriptions(added)...); err != nil {
		return errors.Join(fmt.Errorf("changing the policy: %w", err), a.client.Unsubscribe(ctx, added...))
	}
	a.adopt(next)
	if len(old.encryption)+len(next.encryption) > 0 {
		a.show() // perhaps not as before
	}
	if err := a.client.Unsubscribe(ctx, without(old.filters(), next.filters())...); err != nil {
		// Nothing is lost: messages on topics without a rule are left alone.
		a.cfg.Log.Warn("cannot unsubscribe", "error", err)
	}
	return nil
}

// adopt makes a policy the present one.
func (a *Agent) adopt(p *policy) {
	a.mu.Lock()
	defer a.mu.Unlock()
	routes := make(map[string]*route)
	for _, filter := range p.filters() {
		if routes[filter] = a.telemetryRoutes[filter]; routes[filter] == nil {
			routes[filter] = &route{}
		}
	}
	a.telemetryRoutes = routes
	a.policy.Store(p)
}

// without returns what is in all and not in some.
func without(all, some []string) []string {
	present := make(map[string]bool, len(some))
	for _, s := range some {
		present[s] = true
	}
	var left []string
	for _, s := range all {
		if !present[s] {
			left = append(left, s)
		}
	}
	return left
}

// Counters says how many messages ended for each reason since the start, [signing.ReasonApplied] included.
func (a *Agent) Counters() map[signing.Reason]uint64 {
	counts := make(map[signing.Reason]uint64, len(a.counters))
	for reason, t := range a.counters {
		counts[reason] = t.count.Load()
	}
	return counts
}

// Stats returns the other counts.
func (a *Agent) Stats() Stats {
	return Stats{
		Telemetry:  a.stats.telemetry.Load(),
		Unjudged:   a.stats.unjudged.Load(),
		Unanswered: a.stats.unanswered.Load(),
	}
}
