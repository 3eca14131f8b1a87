package agent_test

import (
	"bytes"
	"strings"
	"testing"

	"pinseal/agent"
	"pinseal/internal/mqtt"
	"pinseal/signing"
	"pinseal/signing/encryption"
)

// secrets are who can read what is encrypted.
type secrets struct {
	node, operator, other *encryption.PrivateKey
	group                 *encryption.SharedKey
}

func newSecrets(t *testing.T) *secrets {
	t.Helper()
	s := &secrets{group: encryption.GenerateSharedKey()}
	for _, key := range []**encryption.PrivateKey{&s.node, &s.operator, &s.other} {
		var err error
		if *key, err = encryption.GenerateKey(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// encryptedNode demands encryption on one topic of the LED and below telemetry/sensor-1/secret, of which …/shown is
// republished, and encrypts its verdicts to the operator.
func encryptedNode(t *testing.T) (*node, *secrets) {
	t.Helper()
	s := newSecrets(t)
	operator := []encryption.Recipient{s.operator.Public()}
	return startNode(t, setup{change: func(c *agent.Config) {
		c.Outputs[0].PlainTopic = ""
		c.Policy.Keys = encryption.NewKeys([]*encryption.PrivateKey{s.node}, []*encryption.SharedKey{s.group})
		c.Policy.Encryption = []agent.EncryptionRule{
			{Filter: agent.SetTopic(nodeName, "led"), To: operator},
			{Filter: "telemetry/sensor-1/secret/shown", Republish: true},
			{Filter: "telemetry/sensor-1/secret/#"},
			{Filter: agent.VerdictTopic(nodeName, "guest"), To: operator},
		}
	}}), s
}

// encrypted seals an encrypted message.
func (n *node) encrypted(signer, topic, msg string, to ...encryption.Recipient) []byte {
	n.t.Helper()
	return n.sealed(n.t, signer, topic, `0`, func(c *signing.Claims) {
		var err error
		b := encryption.Binding{Topic: topic, KeyID: n.keys[signer].Public().ID(), Sequence: c.Sequence}
		if c.Message, err = encryption.Encrypt(to, b, []byte(msg)); err != nil {
			n.t.Fatal(err)
		}
	})
}

func TestEncryptedCommands(t *testing.T) {
	n, s := encryptedNode(t)
	for _, to := range []encryption.Recipient{s.node.Public(), s.group} {
		for _, topic := range []string{ledTopic, agent.SetTopic(nodeName, "led")} {
			if got := n.command("operator", topic, n.encrypted("operator", topic, `"toggle"`, s.other.Public(), to)); got != signing.ReasonApplied {
				t.Errorf("an encrypted command on %s: %s", topic, got)
			}
			// On all topics of the output, although the rule names one.
			if got := n.command("operator", topic, n.sealed(t, "operator", topic, `"on"`)); got != signing.ReasonNotPermitted {
				t.Errorf("a command in the clear on %s: %s", topic, got)
			}
		}
	}
	if n.led.count() != 4 {
		t.Errorf("the line was driven %d times", n.led.count())
	}
	// Elsewhere both will do.
	if got := n.command("operator", "fanStatus", n.encrypted("operator", "fanStatus", `"on"`, s.node.Public())); got != signing.ReasonApplied {
		t.Errorf("an encrypted command where none is demanded: %s", got)
	}
	if got := n.command("operator", "fanStatus", n.sealed(t, "operator", "fanStatus", `"off"`)); got != signing.ReasonApplied {
		t.Errorf("a command in the clear where it may be: %s", got)
	}
}

// TestDecryptionIsNoOracle: whatever is wrong with a ciphertext, the answer is the same, and no number is used up.
func TestDecryptionIsNoOracle(t *testing.T) {
	n, s := encryptedNode(t)
	binding := func(c *signing.Claims) encryption.Binding {
		return encryption.Binding{Topic: ledTopic, KeyID: n.keys["operator"].Public().ID(), Sequence: c.Sequence}
	}
	details := map[string]bool{}
	for name, make := range map[string]func(c *signing.Claims) []byte{
		"to somebody else": func(c *signing.Claims) []byte { return n.made(binding(c), s.other.Public()) },
		"for another topic": func(c *signing.Claims) []byte {
			b := binding(c)
			b.Topic = "fanStatus"
			return n.made(b, s.node.Public())
		},
		"of another signer": func(c *signing.Claims) []byte {
			b := binding(c)
			b.KeyID = n.keys["guest"].Public().ID()
			return n.made(b, s.node.Public())
		},
		"of another number": func(c *signing.Claims) []byte {
			b := binding(c)
			b.Sequence--
			return n.made(b, s.node.Public())
		},
		"damaged key": func(c *signing.Claims) []byte {
			return flip(n.made(binding(c), s.node.Public()), `"encrypted_key":"`)
		},
		"damaged text": func(c *signing.Claims) []byte {
			return flip(n.made(binding(c), s.node.Public()), `"ciphertext":"`)
		},
		"damaged tag": func(c *signing.Claims) []byte { return flip(n.made(binding(c), s.node.Public()), `"tag":"`) },
		"no format":   func(*signing.Claims) []byte { return []byte(`{"protected":"","ciphertext":""}`) },
	} {
		raw := n.sealed(t, "operator", ledTopic, `0`, func(c *signing.Claims) { c.Message = make(c) })
		n.publish(ledTopic, raw)
		v := n.verdict("operator")
		if v.Reason != signing.ReasonBadCommand {
			t.Errorf("%s: %s", name, v.Reason)
		}
		details[v.Detail] = true
		// The same number, encrypted well, is taken.
		good := n.sealed(t, "operator", ledTopic, `0`, numbered(v.Sequence), func(c *signing.Claims) { c.Message = n.made(binding(c), s.node.Public()) })
		if got := n.command("operator", ledTopic, good); got != signing.ReasonApplied {
			t.Errorf("%s, and afterwards a good one: %s", name, got)
		}
	}
	if len(details) != 1 {
		t.Errorf("the answers tell what was wrong: %v", details)
	}
}

func (n *node) made(b encryption.Binding, to ...encryption.Recipient) []byte {
	n.t.Helper()
	msg, err := encryption.Encrypt(to, b, []byte(`"on"`))
	if err != nil {
		n.t.Fatal(err)
	}
	return msg
}

// flip changes the first character after what.
func flip(msg []byte, what string) []byte {
	i := bytes.Index(msg, []byte(what)) + len(what)
	msg[i] = map[bool]byte{true: 'B', false: 'A'}[msg[i] == 'A']
	return msg
}

func TestEncryptedTelemetry(t *testing.T) {
	n, s := encryptedNode(t)
	const secret, shown, open = "telemetry/sensor-1/secret/a", "telemetry/sensor-1/secret/shown", "telemetry/sensor-1/load"
	for _, test := range []struct {
		name, topic, value string
		to                 []encryption.Recipient // nobody: in the clear
		want               signing.Reason         // "": republished
	}{
		{"for others", secret, `1`, []encryption.Recipient{s.other.Public()}, signing.ReasonApplied},
		{"for the node", secret, `2`, []encryption.Recipient{s.node.Public()}, signing.ReasonApplied},
		{"in the clear", secret, `3`, nil, signing.ReasonNotPermitted},
		{"to be republished", shown, `4`, []encryption.Recipient{s.other.Public(), s.node.Public()}, ""},
		{"to be republished, for others", shown, `5`, []encryption.Recipient{s.other.Public()}, signing.ReasonBadCommand},
		{"to be republished, in the clear", shown, `6`, nil, signing.ReasonNotPermitted},
		{"without need", open, `7`, []encryption.Recipient{s.node.Public()}, signing.ReasonApplied},
		{"without need, in the clear", open, `8`, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.t = t
			raw := n.sealed(t, "sensor", test.topic, test.value)
			if test.to != nil {
				raw = n.encrypted("sensor", test.topic, test.value, test.to...)
			}
			n.publish(test.topic, raw)
			if test.want != "" {
				if v := n.verdict("sensor"); v.Reason != test.want || v.Topic != test.topic {
					t.Errorf("got %+v, want %s", v, test.want)
				}
				return
			}
			verified, _ := agent.VerifiedTopic(test.topic)
			if m := n.next(); m.Topic != verified || string(m.Payload) != test.value {
				t.Errorf("got %s on %s", m.Payload, m.Topic)
			}
		})
	}
}

// TestLiftedTelemetry: who cannot open a ciphertext still sees that it belongs elsewhere.
func TestLiftedTelemetry(t *testing.T) {
	n, s := encryptedNode(t)
	const topic = "telemetry/sensor-1/secret/a"
	raw := n.sealed(t, "sensor", topic, `0`, func(c *signing.Claims) {
		c.Message = n.made(encryption.Binding{Topic: topic, KeyID: n.keys["guest"].Public().ID(), Sequence: c.Sequence}, s.other.Public())
	})
	n.publish(topic, raw)
	if v := n.verdict("sensor"); v.Reason != signing.ReasonBadCommand {
		t.Errorf("got %+v", v)
	}
}

func TestNodeEncryptsWhatItSeals(t *testing.T) {
	n, s := encryptedNode(t)
	n.publish("fanStatus", n.sealed(t, "guest", "fanStatus", `"on"`)) // not permitted, and told so
	m := n.next()
	keyring, err := signing.NewKeyring(signing.Signer{Name: "node", Key: n.keys["node"].Public()})
	if err != nil {
		t.Fatal(err)
	}
	message, _, err := signing.Open(m.Payload, agent.VerdictTopic(nodeName, "guest"), keyring)
	if err != nil {
		t.Fatal(err)
	}
	keys := encryption.NewKeys([]*encryption.PrivateKey{s.operator}, nil)
	value, err := keys.Decrypt(message.JSON(), encryption.BindingOf(message))
	if err != nil || !strings.Contains(string(value), "not-permitted") {
		t.Errorf("the verdict is %s, %v", value, err)
	}
}

func TestEncryptionRefusesOtherWays(t *testing.T) {
	for name, change := range map[string]func(*agent.Config){
		"plain topic": func(c *agent.Config) { c.Policy.Encryption = []agent.EncryptionRule{{Filter: ledTopic}} },
		"legacy key":  func(c *agent.Config) { c.Policy.Encryption = []agent.EncryptionRule{{Filter: "fanStatus"}} },
		"bad filter":  func(c *agent.Config) { c.Policy.Encryption = []agent.EncryptionRule{{Filter: "a/#/b"}} },
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, setup{})
			cfg := n.config()
			change(&cfg)
			if _, err := agent.New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestNodeEncryptsWhatItReports(t *testing.T) {
	n, s := encryptedNode(t)
	policy := n.policy(t)
	to := []encryption.Recipient{s.operator.Public()}
	policy.Permits, policy.Legacy = nil, nil
	policy.Encryption = []agent.EncryptionRule{{Filter: "telemetry/+/door", To: to}, {Filter: "telemetry/+/load", To: to, Republish: true}}
	if err := n.agent.SetPolicy(policy); err != nil {
		t.Fatal(err)
	}
	if err := n.observer.Subscribe(t.Context(), mqtt.Subscription{Filter: "telemetry/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	for _, measure := range []string{"door", "load"} {
		if err := n.agent.Report(measure, []byte(`"open"`)); err != nil {
			t.Fatal(err)
		}
		m := n.next()
		message := n.open(m)
		value, err := encryption.NewKeys([]*encryption.PrivateKey{s.operator}, nil).Decrypt(message.JSON(), encryption.BindingOf(message))
		if err != nil || string(value) != `"open"` || m.Topic != agent.TelemetryTopic(nodeName, measure) {
			t.Errorf("reported %s on %s, %v", value, m.Topic, err)
		}
	}
	if m := n.next(); m.Topic != "verified/raspiflow/load" {
		t.Errorf("in the clear: %s", m.Topic)
	}
}

// TestStatesAreEncrypted: what an output shows is sealed and encrypted where a rule says so, from when it says so.
func TestStatesAreEncrypted(t *testing.T) {
	n, s := encryptedNode(t)
	topic := agent.StateTopic(nodeName, "led")
	n.retained(topic, "OFF")
	policy := n.policy(t)
	policy.Legacy = nil
	policy.Encryption = []agent.EncryptionRule{{Filter: "pinseal/" + nodeName + "/#", To: []encryption.Recipient{s.operator.Public(), s.node.Public()}}}
	policy.Keys = encryption.NewKeys([]*encryption.PrivateKey{s.node}, nil)
	if err := n.agent.SetPolicy(policy); err != nil {
		t.Fatal(err)
	}
	n.publish(ledTopic, n.encrypted("operator", ledTopic, `"on"`, s.node.Public()))
	n.next() // the verdict, encrypted too
	keys := encryption.NewKeys([]*encryption.PrivateKey{s.operator}, nil)
	for _, shown := range []struct{ topic, want string }{{topic, `"ON"`}, {agent.StatusTopic(nodeName, "led"), `{"state":"ON","color_mode":"onoff","effect":"off"}`}} {
		for {
			m := n.retained(shown.topic, "")
			if !bytes.HasPrefix(m.Payload, []byte("eyJ")) {
				continue // from before
			}
			message := n.open(m)
			value, err := keys.Decrypt(message.JSON(), encryption.BindingOf(message))
			if err != nil {
				t.Fatal(err)
			}
			if string(value) == shown.want {
				break
			}
		}
	}
	if n.retained(agent.AvailabilityTopic(nodeName), agent.Online); n.led.count() != 1 {
		t.Errorf("switched %d times", n.led.count())
	}
}
