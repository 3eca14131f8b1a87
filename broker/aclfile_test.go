package broker_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pinseal/broker"
)

// aclRule is a line of an ACL file; the oracle reads these, the broker their text.
type aclRule struct {
	user    string // "" before the first user line
	pattern bool
	access  string
	filter  string
}

func aclText(rules []aclRule) string {
	var text strings.Builder
	for _, u := range []string{"", "alice", "bob"} {
		if u != "" {
			fmt.Fprintf(&text, "\n# of %s\nuser %s\n", u, u)
		}
		for _, r := range rules {
			if !r.pattern && r.user == u {
				fmt.Fprintln(&text, strings.Join(strings.Fields("topic "+r.access+" "+r.filter), " "))
			}
		}
	}
	for _, r := range rules {
		if r.pattern {
			fmt.Fprintln(&text, strings.Join(strings.Fields("pattern "+r.access+" "+r.filter), " "))
		}
	}
	return text.String()
}

// aclAllows is the oracle: the manual of mosquitto in the simplest words. verb is read or write.
func aclAllows(rules []aclRule, user, clientID, verb, topic string) bool {
	for _, patterns := range []bool{false, true} {
		matching := func(accesses ...string) bool {
			return slices.ContainsFunc(rules, func(r aclRule) bool {
				if r.pattern != patterns || !patterns && r.user != user || patterns && user == "" && strings.Contains(r.filter, "%u") {
					return false
				}
				filter := r.filter
				if patterns {
					filter = strings.ReplaceAll(strings.ReplaceAll(filter, "%u", user), "%c", clientID)
				}
				return slices.Contains(accesses, r.access) && oracle(filter, topic)
			})
		}
		if matching("deny") {
			return false
		}
		if matching(verb, "readwrite", "") {
			return true
		}
	}
	return false
}

func aclFilters(levels []string, n int) []string {
	return slices.DeleteFunc(words(levels, n), func(f string) bool {
		i := strings.Index(f, "#")
		return i >= 0 && i != len(f)-1
	})
}

func aclPolicy(tb testing.TB, rules []aclRule) *broker.Policy {
	tb.Helper()
	return &broker.Policy{ACLFile: must(broker.ParseACLFile("acl", []byte(aclText(rules))))(tb)}
}

// Every identity, filter and topic over a small alphabet, under many files.
func TestACLFileAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ruleFilters := append(aclFilters([]string{"a", "b", "+", "#", "$SYS"}, 2), "%u", "%c", "%u/%c", "+/%c", "a/%u", "%c/#", "%u/+")
	topics := words([]string{"a", "b", "alice", "id", "$SYS"}, 2)
	filters := aclFilters([]string{"a", "b", "id", "+", "#", "$SYS"}, 2)
	accesses := []string{"read", "write", "readwrite", "deny", ""}
	for range 150 {
		var rules []aclRule
		for range 1 + r.IntN(6) {
			rule := aclRule{[]string{"", "alice", "bob"}[r.IntN(3)], r.IntN(2) == 0, accesses[r.IntN(5)], ruleFilters[r.IntN(len(ruleFilters))]}
			if !rule.pattern && strings.Contains(rule.filter, "%") {
				rule.filter = "a"
			}
			rules = append(rules, rule)
		}
		policy := aclPolicy(t, rules)
		ask := func(user, topic string, subscribe bool) bool {
			return must(broker.Explain(policy, node, broker.Request{Identity: user, ClientID: "id", Topic: topic, Subscribe: subscribe}))(t).Reason == ""
		}
		for _, user := range []string{"", "alice", "bob"} {
			for _, topic := range topics {
				if got, want := ask(user, topic, true), aclAllows(rules, user, "id", "read", topic); got != want {
					t.Fatalf("%q reads %q: %v, want %v\n%s", user, topic, got, want, aclText(rules))
				}
				want := aclAllows(rules, user, "id", "write", topic) && !strings.HasPrefix(topic, "$SYS")
				if got := ask(user, topic, false); got != want {
					t.Fatalf("%q writes %q: %v, want %v\n%s", user, topic, got, want, aclText(rules))
				}
			}
			for _, filter := range filters {
				some := slices.ContainsFunc(topics, func(topic string) bool {
					return oracle(filter, topic) && aclAllows(rules, user, "id", "read", topic)
				})
				for _, asked := range []string{filter, "$share/g/" + filter} {
					if some && !ask(user, asked, true) {
						t.Fatalf("%q subscribes %q: refused, though some of it may be read\n%s", user, asked, aclText(rules))
					}
				}
			}
		}
	}
}

// A file with every form of line.
func everyForm() []aclRule {
	return []aclRule{
		{"", false, "readwrite", "#"}, // of clients without a name; nobody here is one
		{"alice", false, "read", "a/#"},
		{"alice", false, "deny", "a/b"},
		{"alice", false, "write", "b"},
		{"alice", false, "", "$x/a"},
		{"bob", false, "readwrite", "+/a"},
		{"bob", false, "deny", "b"},
		{"bob", false, "read", "end"},
		{"alice", false, "read", "end"},
		{"", true, "read", "%u"},
		{"", true, "write", "%u/%c"},
		{"", true, "deny", "b/b"},
		{"", true, "read", "b/#"},
	}
}

func aclTopics() []string {
	return append(words([]string{"a", "b", "$x"}, 2), "alice", "bob", "alice/id")
}

// aclSite has one more client that may write everything.
func aclSite(t *testing.T) *site {
	t.Helper()
	return start(t, func(c *broker.Config) {
		c.Policy = aclPolicy(t, everyForm())
		c.Policy.Rules = []broker.Rule{{Identity: "writer", Publish: []string{"#", "$x/#"}}}
		c.Limits.MaxStoredSessions = 1000
	})
}

// deliveryFilters are those on which bare mochi errs too: the parent of +/# and of a/#, a leading wildcard before $.
func deliveryFilters() []string { return aclFilters([]string{"a", "b", "+", "#"}, 2) }

// delivered reads messages, acknowledging them, until one on the topic end, and returns their topics.
func (r raw) delivered(t *testing.T) []string {
	t.Helper()
	return r.deliveredUntil(t, func(_ []byte, topic string) bool { return topic == "end" })
}

func (r raw) deliveredUntil(t *testing.T, last func(packet []byte, topic string) bool) (topics []string) {
	t.Helper()
	for {
		p, topic := r.read(t), ""
		if p[0]&0xf0 == 0x30 {
			size := int(p[2])<<8 | int(p[3])
			topic = string(p[4 : 4+size])
			if p[0]&6 != 0 {
				r.send(t, packet(0x40, p[4+size:6+size]))
			}
		}
		if last(p, topic) {
			return topics
		}
		if topic != "" {
			topics = append(topics, topic)
		}
	}
}

// What is delivered at once, as retained, and to a session that was away is what filter and file both match.
func TestACLFileDelivery(t *testing.T) {
	s := aclSite(t)
	writer := s.connect(t, "writer", "w")
	topics := slices.DeleteFunc(aclTopics(), func(topic string) bool { return topic[0] == '$' })
	for _, topic := range topics {
		await(t, writer.Publish(topic, 1, true, "kept"))
	}
	type reader struct {
		raw
		user, id, filter string
		want, early      []string
	}
	var readers []*reader
	for _, user := range []string{"alice", "bob"} {
		for i, filter := range deliveryFilters() {
			for _, prefix := range []string{"", "$share/" + user + fmt.Sprint(i) + "/"} {
				r := &reader{user: user, id: fmt.Sprint("id", i, prefix != ""), filter: prefix + filter}
				for _, topic := range topics {
					if oracle(filter, topic) && aclAllows(everyForm(), user, r.id, "read", topic) {
						r.want = append(r.want, topic)
					}
				}
				slices.Sort(r.want)
				readers = append(readers, r)
			}
		}
	}
	for _, r := range readers {
		r.raw = s.dialRaw(t, r.user)
		r.send(t, persistent311(r.id), packet(0x82, []byte{0, 1}, str(r.filter), []byte{1}, str("end"), []byte{1}))
	}
	for _, r := range readers { // what is retained is on its way before the answer to a PINGREQ
		r.send(t, []byte{0xc0, 0})
		r.early = r.deliveredUntil(t, func(p []byte, _ string) bool { return p[0] == 0xd0 })
	}
	check := func(how string, r *reader, want []string) {
		t.Helper()
		got := append(r.early, r.delivered(t)...)
		r.early = nil
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s, %s subscribed to %s: %q, want %q", how, r.user, r.filter, got, want)
		}
	}
	writer.publish(t, "end", "", 1)
	for _, r := range readers {
		if strings.HasPrefix(r.filter, "$share") {
			check("retained", r, nil) // MQTT 5.0 section 4.8.2
		} else {
			check("retained", r, r.want)
		}
	}
	publish := func() {
		for _, topic := range append(topics, "end") {
			writer.publish(t, topic, "", 1)
		}
	}
	publish()
	for _, r := range readers {
		check("at once", r, r.want)
		r.send(t, []byte{0xe0, 0})
		r.wantClosed(t)
	}
	publish()
	for _, r := range readers {
		r.raw = s.dialRaw(t, r.user)
		r.send(t, persistent311(r.id))
		check("while away", r, r.want)
	}
}

// Publishing and wills, for every identity and topic.
func TestACLFilePublish(t *testing.T) {
	s := aclSite(t)
	for _, user := range []string{"alice", "bob"} {
		c := s.dialRaw(t, user)
		c.send(t, connect5("id"))
		c.read(t)
		for _, topic := range aclTopics() {
			want := aclAllows(everyForm(), user, "id", "write", topic)
			if _, _, reason := c.publishes(t, 5, 1, false, topic); (reason < 0x80) != want {
				t.Errorf("%s publishes %s: reason code %#x, want allowed %v", user, topic, reason, want)
			}
			w := s.dialRaw(t, user)
			w.send(t, packet(0x10, str("MQTT"), []byte{4, 6, 0, 60}, str("id"), str(topic), str("bye")))
			if ack := w.read(t); (ack[3] == 0) != want {
				t.Errorf("%s with a will on %s: CONNACK % x, want allowed %v", user, topic, ack, want)
			}
			c = s.dialRaw(t, user)
			c.send(t, connect5("id"))
			c.read(t)
		}
	}
}

// mosquitto itself, with the same file, delivers and accepts the same.
func TestACLFileAgainstMosquitto(t *testing.T) {
	rules := append(everyForm(), aclRule{"bob", false, "readwrite", "b/+"}, aclRule{"", true, "", "a/%c"})
	m := startMosquitto(t, "acl_file "+writeFile(t, "acl", aclText(rules)+"user all\ntopic readwrite #\ntopic readwrite $x/#\n"))
	all := m.connect(t, "all", "all")
	all.subscribe(t, "#", 1)
	all.subscribe(t, "$x/#", 1)
	policy := aclPolicy(t, rules)
	for _, user := range []string{"alice", "bob"} {
		c := m.connect(t, user, "id")
		c.subscribe(t, "#", 1)
		c.subscribe(t, "$x/#", 1)
		for _, topic := range aclTopics() {
			request := broker.Request{Identity: user, ClientID: "id", Topic: topic}
			may := func(r broker.Request) bool { return must(broker.Explain(policy, node, r))(t).Reason == "" }
			write := may(request)
			request.Subscribe = true
			read := may(request)
			c.publish(t, topic, "from "+user, 1)
			all.publish(t, "end", "", 1)
			if got := all.untilEnd(t); (len(got) == 1) != write {
				t.Errorf("mosquitto lets %s write %s: %v, we say %v", user, topic, got, write)
			}
			c.untilEnd(t)
			all.publish(t, topic, "from all", 1)
			all.publish(t, "end", "", 1)
			if got := c.untilEnd(t); (len(got) == 1) != read {
				t.Errorf("mosquitto lets %s read %s: %v, we say %v", user, topic, got, read)
			}
			all.untilEnd(t)
		}
	}
}

// untilEnd receives messages up to one on the topic end.
func (c *client) untilEnd(t *testing.T) []message {
	t.Helper()
	var got []message
	for {
		m := c.receive(t)
		if m.topic == "end" {
			return got
		}
		got = append(got, m)
	}
}

func TestACLFileMistakes(t *testing.T) {
	for _, tc := range []struct{ name, text, says string }{
		{"word", "topic a\nallow a", `acl:2: a line begins with user, topic or pattern, not "allow"`},
		{"access", "topic red a", `acl:1: access is read, write, readwrite or deny, not "red"`},
		{"no topic", "topic", "acl:1: "},
		{"no user", "user", "acl:1: no client can be named"},
		{"user", "\n\nuser a b", `acl:3: no client can be named "a b"`},
		{"filter", "user a\ntopic read a/#/b", `acl:2: "a/#/b" is not an MQTT topic filter`},
		{"shared", "pattern read $share/g/a", "inner filter"},
		{"indented", " \ttopic  read  a b ", ""},
		{"comments", "#\n  # more\n\r\nuser a\r\ntopic read a\r\n", ""},
		{"access as topic", "topic read", ""}, // as in mosquitto: the topic "read"
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := broker.ParseACLFile("acl", []byte(tc.text))
			if got := fmt.Sprint(err); tc.says == "" && err != nil || !strings.Contains(got, tc.says) && tc.says != "" {
				t.Errorf("got %q, want %q", got, tc.says)
			}
		})
	}
}

// A client id must not become a wildcard, nor lead to the broker's own topics, nor be filled in twice.
func TestACLFileClientID(t *testing.T) {
	policy := aclPolicy(t, []aclRule{{"", true, "readwrite", "%c/#"}, {"", true, "readwrite", "%u"}, {"alice", false, "read", "a"}})
	for _, tc := range []struct {
		id, topic string
		want      bool
	}{
		{"id", "id/x", true},
		{"+", "a", true}, // by a topic line, which is asked before
		{"+", "x/y", false},
		{"+", "alice", false},
		{"a/#", "a/b", false},
		{"$SYS", "$SYS/x", false},
		{"%u", "%u/x", true},
		{"%u", "alice/x", false},
	} {
		d := must(broker.Explain(policy, node, broker.Request{Identity: "alice", ClientID: tc.id, Topic: tc.topic, Subscribe: true}))(t)
		if (d.Reason == "") != tc.want {
			t.Errorf("client id %q reads %q: %+v, want %v", tc.id, tc.topic, d, tc.want)
		}
	}
}

// What the file denies, no rule allows; and the node is not in its hands.
func TestACLFileBesideRules(t *testing.T) {
	policy := aclPolicy(t, []aclRule{{"alice", false, "deny", "a/#"}, {"", true, "deny", "node/#"}})
	policy.Rules = []broker.Rule{{Identity: "*", Publish: []string{"#"}, Subscribe: []string{"#"}}}
	policy.Reserved = []string{"node/#"}
	for _, tc := range []struct {
		user, topic string
		want        bool
	}{
		{"alice", "b", true},
		{"alice", "a/b", false},
		{"bob", "a/b", true},
		{"alice", "node/x", false},
		{node, "node/x", true},
		{"", "b", false}, // rules are for names
	} {
		for _, subscribe := range []bool{true, false} {
			d := must(broker.Explain(policy, node, broker.Request{Identity: tc.user, Topic: tc.topic, Subscribe: subscribe}))(t)
			if (d.Reason == "") != tc.want {
				t.Errorf("%q, %s: %+v, want %v", tc.user, tc.topic, d, tc.want)
			}
		}
	}
}

// A rule's quality of service: a publish and a will above it are refused, a subscription is granted less, and a change
// of the policy lowers what was granted.
func TestMaxQoS(t *testing.T) {
	limited := func(subscribe byte) *broker.Policy {
		return &broker.Policy{Rules: []broker.Rule{
			{Identity: "*", Publish: []string{"a/#"}, MaxQoS: new(byte(1))},
			{Identity: "*", Publish: []string{"a/free"}},
			{Identity: "*", Subscribe: []string{"a/#"}, MaxQoS: &subscribe},
		}}
	}
	s := start(t, func(c *broker.Config) { c.Policy = limited(1) })
	c := s.dialRaw(t, "alice")
	c.send(t, connect5("id"))
	c.read(t)
	for _, tc := range []struct {
		topic       string
		qos, reason byte
	}{{"a/b", 1, 0}, {"a/b", 2, 0x87}, {"a/free", 2, 0}} {
		if _, _, reason := c.publishes(t, 5, tc.qos, false, tc.topic); reason >= 0x80 && reason != tc.reason || reason < 0x80 && tc.reason != 0 {
			t.Errorf("%s at QoS %d: reason code %#x, want %#x", tc.topic, tc.qos, reason, tc.reason)
		}
	}
	if n := s.Stats().ByReason[broker.ReasonQoS]; n != 1 {
		t.Errorf("%d counted as %s, want 1", n, broker.ReasonQoS)
	}
	w := s.dialRaw(t, "alice")
	w.send(t, packet(0x10, str("MQTT"), []byte{4, 6 | 2<<3, 0, 60}, str("w"), str("a/b"), str("bye")))
	if ack := w.read(t); ack[3] != 5 {
		t.Errorf("will above the quality of service: CONNACK % x", ack)
	}
	sub := s.dialRaw(t, "bob")
	sub.send(t, persistent311("id"), packet(0x82, []byte{0, 1}, str("a/#"), []byte{2}))
	sub.read(t)
	if ack := sub.read(t); ack[4] != 1 {
		t.Errorf("SUBACK % x, want QoS 1 granted", ack)
	}
	if err := s.SetPolicy(limited(0)); err != nil {
		t.Fatal(err)
	}
	c.publishes(t, 5, 1, false, "a/b")
	if p := sub.read(t); p[0] != 0x30 {
		t.Errorf("received % x, want a PUBLISH at QoS 0", p)
	}
}

func writeFile(tb testing.TB, name, text string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	save(tb, path, text)
	return path
}

// What was on its way when a policy changed is not delivered later.
func TestPolicyChangesDuringAStream(t *testing.T) {
	reading := func(filter string) *broker.Policy {
		text := "user alice\ntopic read " + filter + "\nuser bob\ntopic write #\n"
		return &broker.Policy{ACLFile: must(broker.ParseACLFile("acl", []byte(text)))(t)}
	}
	s := start(t, func(c *broker.Config) { c.Policy = reading("#") })
	c, _ := s.resume(t, "alice", connect5("id", 0x21, 0, 1)) // one unacknowledged message at a time
	c.subscribes(t, 5, "#", 1)
	bob := s.connect(t, "bob", "")
	var crowd []*client
	for range 4 {
		crowd = append(crowd, s.connect(t, "bob", ""))
	}
	for range 20 {
		bob.publish(t, "a", "first", 1)
		first := c.read(t)
		var stream sync.WaitGroup
		stop := make(chan struct{})
		for _, b := range crowd {
			stream.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						b.Publish("b", 1, false, "x").Wait()
					}
				}
			})
		}
		sent := s.Stats().Received
		eventually(t, "a stream", func() bool { return s.Stats().Received > sent+100 })
		if err := s.SetPolicy(reading("a")); err != nil {
			t.Fatal(err)
		}
		close(stop)
		stream.Wait()
		c.send(t, packet(0x40, first[5:7]))
		c.nothingMore(t)
		if err := s.SetPolicy(reading("#")); err != nil {
			t.Fatal(err)
		}
	}
}
