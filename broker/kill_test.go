package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pinseal/broker"
)

const (
	childVariable = "PINSEAL_BROKER_TEST_CHILD"
	// killsVariable is how often the broker is killed in TestKilledUnderAStream; a few times if it is not set.
	killsVariable = "PINSEAL_BROKER_KILLS"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		fmt.Println("child:", child(path))
		return
	}
	m.Run()
}

// child serves on a free port, which it prints, until it is killed.
func child(path string) error {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b, err := broker.New(broker.Config{
		Node: node, Policy: everything(), Persistence: broker.Persistence{Path: path},
		Listeners: []broker.Listener{{Name: "test", Net: l, Plain: true, Authenticate: anyName}},
	})
	if err != nil {
		return err
	}
	go func() {
		<-b.Ready()
		fmt.Println(l.Addr())
	}()
	return b.Run(context.Background())
}

func anyName(_ context.Context, c broker.Credentials) (broker.Login, error) {
	return broker.Login{Identity: c.Username}, nil
}

// victim is a broker in a process of its own.
type victim struct {
	cmd     *exec.Cmd
	address string
}

func startVictim(t *testing.T, path string) *victim {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+path)
	out := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "127.") {
		t.Fatalf("the child says %q, %v", line, err)
	}
	return &victim{cmd, strings.TrimSpace(line)}
}

func (v *victim) kill(t *testing.T) {
	t.Helper()
	if err := v.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
}

func (v *victim) connect(t *testing.T, name string, flags byte) net.Conn {
	t.Helper()
	c := dialPlain(t, "tcp", v.address)
	if code := connack(t, c, packet(0x10, str("MQTT"), []byte{4, flags | 0x80, 0, 60}, str("id"), str(name))); code != 0 {
		t.Fatalf("CONNACK with code %d", code)
	}
	return c
}

// Every message has a number. It goes to one of a few topics, at QoS 1, retained.
const (
	streamTopics = 5
	streamWindow = 20 // messages under way
)

func streamTopic(n int) string { return "t/" + strconv.Itoa(n%streamTopics) }

// stream publishes from the number on, until the broker is killed after so many acknowledgements, and returns the first
// number that was not acknowledged. They are acknowledged in order.
func stream(t *testing.T, v *victim, from, acks int) (next int) {
	t.Helper()
	c := v.connect(t, "writer", 2)
	sent := from
	send := func() {
		// Its error is that the broker was killed.
		_, _ = c.Write(packet(0x33, str(streamTopic(sent)), []byte{byte(sent>>8) | 0x80, byte(sent)}, []byte(strconv.Itoa(sent))))
		sent++
	}
	for range streamWindow {
		send()
	}
	for next = from; ; next++ {
		if next == from+acks {
			v.kill(t) // what it has sent before is still to be read
		}
		ack, err := readPacket(c)
		if err != nil {
			return next
		}
		if ack[0] != 0x40 || ack[2]&0x7f != byte(next>>8)&0x7f || ack[3] != byte(next) {
			t.Fatalf("received % x, want the PUBACK of %d", ack, next)
		}
		send()
	}
}

// drain reads and acknowledges what waits for the reader, and returns the numbers by topic. round is different each time.
// What a reader has acknowledged may come again after a crash: only what a publisher is told waits for the disk.
func drain(t *testing.T, v *victim, round int) map[string][]int {
	t.Helper()
	c := v.connect(t, "reader", 0)
	got := map[string][]int{}
	_ = must(c.Write(packet(0x32, str("t/e"), []byte{0, 1}, []byte(strconv.Itoa(round)))))(t)
	for {
		p := must(readPacket(c))(t)
		if p[0]&0xf0 != 0x30 {
			continue // the PUBACK of the last message
		}
		_ = must(c.Write(packet(0x40, p[7:9])))(t)
		topic, n := string(p[4:7]), must(strconv.Atoi(string(p[9:])))(t)
		if topic != "t/e" {
			got[topic] = append(got[topic], n)
		} else if n == round {
			break
		}
	}
	// The answer comes when all acknowledgements have been read.
	_ = must(c.Write([]byte{0xc0, 0, 0xe0, 0}))(t)
	for {
		if p, err := readPacket(c); err != nil || p[0] == 0xd0 {
			return got
		}
	}
}

// What was acknowledged is there after kill -9: for a client that is away, each message, in order; as retained, the last
// one of each topic or a later one.
func TestKilledUnderAStream(t *testing.T) {
	kills := 5
	if s := os.Getenv(killsVariable); s != "" {
		kills = must(strconv.Atoi(s))(t)
	}
	path := filepath.Join(t.TempDir(), "broker.db")
	v := startVictim(t, path)
	c := v.connect(t, "reader", 0)
	_ = must(c.Write(packet(0x82, []byte{0, 1}, str("t/#"), []byte{1})))(t)
	_ = must(readPacket(c))(t)
	_ = c.Close()

	acknowledged, lost, from := 0, 0, 0
	told := map[string]int{} // the last number of each topic that was acknowledged
	for round := range kills {
		next := stream(t, v, from, 1+rand.IntN(300))
		v = startVictim(t, path)
		for n := from; n < next; n++ {
			told[streamTopic(n)] = n
		}
		lost += missing(t, drain(t, v, round), from, next) + stale(t, v, told)
		acknowledged += next - from
		from = next + streamWindow + 1 // numbers that were under way may come or not
	}
	v.kill(t)
	t.Logf("%d kills: %d messages acknowledged, %d lost", kills, acknowledged, lost)
	if lost > 0 {
		t.Errorf("%d of %d acknowledged messages were lost", lost, acknowledged)
	}
}

// missing counts the numbers that the reader did not get, and fails where it got them in another order.
func missing(t *testing.T, got map[string][]int, from, next int) (lost int) {
	t.Helper()
	seen := map[int]bool{}
	for topic, numbers := range got {
		last := -1
		for _, n := range numbers {
			if n <= last || streamTopic(n) != topic {
				t.Errorf("%s: %d came after %d", topic, n, last)
			}
			last = n
			seen[n] = true
		}
	}
	for n := from; n < next; n++ {
		if !seen[n] {
			lost++
		}
	}
	return lost
}

// stale counts the topics whose retained message is older than the last that was acknowledged.
func stale(t *testing.T, v *victim, told map[string]int) (lost int) {
	t.Helper()
	c := v.connect(t, "other", 2)
	_ = must(c.Write(packet(0x82, []byte{0, 1}, str("t/+"), []byte{0})))(t)
	_ = must(c.Write([]byte{0xc0, 0}))(t)
	kept := map[string]int{}
	for {
		p := must(readPacket(c))(t)
		if p[0] == 0xd0 {
			break
		}
		if p[0] == 0x31 {
			kept[string(p[4:7])] = must(strconv.Atoi(string(p[7:])))(t)
		}
	}
	for topic, n := range told {
		if kept[topic] < n {
			lost++
		}
	}
	return lost
}
