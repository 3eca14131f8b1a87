package broker_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"

	"pinseal/broker"
)

// A node that is behind loses nothing, and a single message does not wait for a flood that began before it.
func TestFloodWaitsForTheNode(t *testing.T) {
	s := start(t, func(c *broker.Config) {
		c.Limits.MaxInflight, c.Limits.MaxQueuedMessages = 700, 700 // beyond, messages are dropped
	})
	var mu sync.Mutex
	var unacknowledged []paho.Message
	held, behind := true, make(chan struct{})
	n := must(s.tryConnect(t, node, "agent", func(o *paho.ClientOptions) {
		o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
			return s.Dial(context.Background())
		})
		o.SetAutoAckDisabled(true)
		handle := o.DefaultPublishHandler
		o.SetDefaultPublishHandler(func(c paho.Client, m paho.Message) {
			mu.Lock()
			defer mu.Unlock()
			if !held {
				m.Ack()
			} else if unacknowledged = append(unacknowledged, m); len(unacknowledged) == 512 {
				close(behind)
			}
			handle(c, m)
		})
	}))(t)
	n.subscribe(t, "cmd", 1)

	flooder, good := s.connect(t, "mallory", ""), s.connect(t, "alice", "")
	const flood = 3000
	var sent []paho.Token
	for i := range flood {
		sent = append(sent, flooder.Publish("cmd", 1, false, fmt.Sprint(i)))
	}
	<-behind
	single := good.Publish("cmd", 1, false, "single")

	mu.Lock()
	held = false
	for _, m := range unacknowledged {
		m.Ack()
	}
	mu.Unlock()
	await(t, single)

	at := -1
	for i := range flood + 1 {
		if n.receive(t).payload == "single" {
			at = i
		}
	}
	if at < 0 || at > flood*2/3 {
		t.Errorf("the single message came as number %d of %d", at, flood+1)
	}
	for _, token := range sent {
		await(t, token)
	}
	if dropped := s.Stats().ByReason[broker.ReasonQueueFull]; dropped != 0 {
		t.Errorf("%d messages were dropped", dropped)
	}
}
