package broker_test

import (
	"fmt"
	"testing"
	"time"

	"pinseal/broker"

	paho "github.com/eclipse/paho.mqtt.golang"
)

func denying(identities ...string) *broker.Policy {
	p := everything()
	p.Denied = identities
	return p
}

// Whoever is denied is out at once, with everything that was theirs; nobody else notices.
func TestDenied(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	watcher := s.connect(t, "watcher", "w")
	watcher.subscribe(t, "#", 1)
	absent := must(s.tryConnect(t, "watcher", "absent", keep))(t)
	absent.subscribe(t, "kept/#", 1)
	absent.Disconnect(0)
	stored := must(s.tryConnect(t, "thief", "stored", keep))(t)
	stored.subscribe(t, "#", 1)
	stored.Disconnect(0)
	eventually(t, "both sessions are away", func() bool { return s.Stats().Connections == 1 })

	thief := must(s.tryConnect(t, "thief", "live", func(o *paho.ClientOptions) {
		o.SetWill("will", "gone", 1, false)
	}))(t)
	await(t, thief.Publish("kept/thief", 1, true, "mine"))
	honest := s.connect(t, "honest", "h")
	await(t, honest.Publish("kept/honest", 1, true, "hers"))
	watcher.want(t, "kept/thief", "mine")
	watcher.want(t, "kept/honest", "hers")

	if err := s.SetPolicy(denying("thief")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-thief.lost:
	case <-time.After(timeout):
		t.Fatal("the connection stayed open")
	}
	if _, err := s.tryConnect(t, "thief", "live", nil); err == nil {
		t.Error("the denied identity is let in again")
	}
	// What is left: nothing of the thief's retained or queued, no will, no session; the others' is all there.
	honest.publish(t, "after", "1", 1)
	watcher.want(t, "after", "1")
	back := must(s.tryConnect(t, "watcher", "absent", keep))(t)
	back.want(t, "kept/honest", "hers")
	late := s.connect(t, "late", "l")
	late.subscribe(t, "#", 1)
	late.want(t, "kept/honest", "hers")
	honest.publish(t, "after", "2", 1)
	for _, c := range []*client{late, watcher} {
		c.want(t, "after", "2")
	}
	if got := s.Stats(); got.Sessions != 4 || got.ByReason[broker.ReasonRevoked] < 2 {
		t.Errorf("%d sessions, %d refusals, want 4 and at least 2", got.Sessions, got.ByReason[broker.ReasonRevoked])
	}

	// Admitted anew, it begins with nothing.
	if err := s.SetPolicy(everything()); err != nil {
		t.Fatal(err)
	}
	anew := must(s.tryConnect(t, "thief", "stored", keep))(t)
	honest.publish(t, "after", "3", 1)
	anew.subscribe(t, "after", 1)
	honest.publish(t, "after", "4", 1)
	anew.want(t, "after", "4")
}

func keep(o *paho.ClientOptions) { o.SetCleanSession(false) }

// A stream ends with the decision, within a second where the machine is not busy: not one message of it is delivered later.
func TestDeniedDuringAStream(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	watcher := s.connect(t, "watcher", "w")
	watcher.subscribe(t, "stream", 1)
	thief := s.connect(t, "thief", "t")
	go func() {
		for i := 0; thief.IsConnectionOpen(); i++ {
			thief.Publish("stream", 1, false, fmt.Sprint(i)).Wait()
		}
	}()
	for range 100 {
		watcher.receive(t)
	}
	if err := s.SetPolicy(denying("thief")); err != nil {
		t.Fatal(err)
	}
	decided := time.Now()
	<-thief.lost
	ended := time.Since(decided)
	// What had been delivered before this is behind it.
	s.connect(t, "honest", "h").publish(t, "stream", "end", 1)
	for m := watcher.receive(t); m.payload != "end"; m = watcher.receive(t) {
	}
	if ended > timeout {
		t.Errorf("the stream ended after %v", ended)
	}
	t.Logf("the stream ended after %v", ended)
}

// So it is with wills, whether they came before the decision and are retained, or wait.
func TestDeniedWill(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	absent := must(s.tryConnect(t, "watcher", "absent", keep))(t)
	absent.subscribe(t, "#", 1)
	absent.Disconnect(0)
	others := s.Stats().Retained
	thief := s.dialRaw(t, "thief")
	thief.send(t, packet(0x10, str("MQTT"), []byte{4, 2 | 4 | 1<<3 | 1<<5, 0, 60}, str("id"), str("w"), str("mine")))
	thief.read(t)
	_ = thief.Close()
	eventually(t, "the will is retained", func() bool { return s.Stats().Retained == others+1 })
	if err := s.SetPolicy(denying("thief")); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().Retained; n != others {
		t.Errorf("%d messages retained, want %d", n, others)
	}
	back := must(s.tryConnect(t, "watcher", "absent", keep))(t)
	back.publish(t, "after", "1", 1)
	back.want(t, "after", "1")
}

func TestNodeCannotBeDenied(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	if err := s.SetPolicy(denying(node)); err == nil {
		t.Error("the node denied itself")
	}
}
