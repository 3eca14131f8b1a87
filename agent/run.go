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
	"strings"
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
	verifier  verifier
	verdicts  chan verdict

	policy   atomic.Pointer[policy]
	started  atomic.Bool
	stopping atomic.Bool
	ready    chan struct{}

	announced sync.Once

	counters map[signing.Reason]*tally
	unjudged *tally
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
	}
	a.verifier.length = cfg.QueueLength
	a.verifier.work.L = &a.verifier.mu
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
	return a, nil
}

func newChallenge() string {
	var b [challengeBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (cfg *Config) check() error {
	switch {
	case !validName(cfg.Node):
		return fmt.Errorf("%q is not a name for a node", cfg.Node)
	case cfg.Key == nil, cfg.Sequence == nil:
		return errors.New("the node needs a key and a sequence to seal with")
	case cfg.Replay == nil:
		return errors.New("the node needs a replay database")
	case cfg.Clock == nil:
		return errors.New("the node needs a clock")
	}
	return nil
}

// validName is the rule for the names of identities, nodes and outputs.
func validName(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) < 0
}

func (a *Agent) addOutputs() error {
	for _, cfg := range a.cfg.Outputs {
		switch {
		case !validName(cfg.Name) || cfg.Name == "verdict": // pinseal/<node>/verdict/set would be a verdict
			return fmt.Errorf("%q is not a name for an output", cfg.Name)
		case a.outputs[cfg.Name] != nil:
			return fmt.Errorf("there are two outputs %s", cfg.Name)
		case cfg.Line == nil:
			return fmt.Errorf("the output %s has no line", cfg.Name)
		}
		o := &output{
			name:       cfg.Name,
			stateTopic: StateTopic(a.cfg.Node, cfg.Name),
			line:       cfg.Line,
			lane:       &lane{in: newFIFO[*job](), accepted: newFIFO[*command]()},
			plainRate:  rate.NewLimiter(defaultRate, defaultBurst),
		}
		o.on.Store(cfg.Line.On())
		a.outputs[cfg.Name] = o
		if err := errors.Join(
			a.addTopic(cfg.Topic, o, false),
			a.addTopic(SetTopic(a.cfg.Node, cfg.Name), o, false),
			a.addTopic(cfg.PlainTopic, o, true),
		); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) addTopic(topic string, o *output, plain bool) error {
	switch {
	case topic == "":
		return nil
	case !signing.ValidTopic(topic):
		return fmt.Errorf("the output %s has a topic %q that is none", o.name, topic)
	case strings.HasPrefix(topic, telemetryPrefix), strings.HasPrefix(topic, verifiedPrefix):
		return fmt.Errorf("the output %s has a topic %q that is for telemetry", o.name, topic)
	case a.routes[topic] != nil:
		return fmt.Errorf("the topic %s is used twice", topic)
	}
	a.routes[topic] = &route{output: o, plain: plain}
	return nil
}

func (a *Agent) clientConfig() mqtt.Config {
	subs := subscriptions(a.policy.Load().filters())
	for topic := range a.routes {
		subs = append(subs, mqtt.Subscription{Filter: topic, QoS: 1})
	}
	return mqtt.Config{
		Dial:          a.cfg.Dial,
		ClientID:      a.cfg.ClientID,
		Username:      a.cfg.Username,
		CleanSession:  a.cfg.ClientID == "",
		Will:          a.availability(Offline),
		Subscriptions: subs,
		MaxPayload:    signing.MaxSealedBytes,
		OnMessage:     a.receive,
		OnUp:          a.announce,
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
	for _, o := range a.outputs {
		a.publishState(o)
	}
	msg, err := json.Marshal(challengeMessage{a.challenge})
	if err == nil {
		err = a.publishSealed(ChallengeTopic(a.cfg.Node), msg, true, nil)
	}
	if err != nil {
		a.cfg.Log.Error("cannot seal the challenge", "error", err)
	}
	// Last: messages are confirmed in their order.
	a.client.PublishAsync(*a.availability(Online), func(err error) {
		if err == nil {
			a.announced.Do(func() { close(a.ready) })
		}
	})
}

// Run connects, and serves until ctx ends. It then finishes the commands it has received, says [Offline] and returns
// nil; no line is touched afterwards, and closing them is the caller's. While the broker cannot be reached Run tries
// again; it returns an error only if the broker answers the very first connection with a refusal. An agent runs once.
func (a *Agent) Run(ctx context.Context) error {
	if !a.started.CompareAndSwap(false, true) {
		return errors.New("the agent has run already")
	}
	stop := a.start()
	connected, err := a.connect(ctx)
	if connected {
		<-ctx.Done()
	}
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
	for _, o := range a.outputs {
		judges.Go(func() { a.judgeCommands(o) })
		actors.Go(func() { a.actOnCommands(o) })
	}
	sealers.Go(a.sendVerdicts)
	return func() {
		a.stopping.Store(true)
		a.telemetry.in.close()
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
