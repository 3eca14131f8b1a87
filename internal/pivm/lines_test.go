//go:build pivm

package pivm_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The outputs of the node under test. The relay is active low, so that "off" is a level that no unclaimed line has;
// the fan starts and stops at different levels, so that a restart shows both.
const (
	led   = 17
	fan   = 22
	gate  = 23
	lamp  = 24
	door  = 25 // an input
	relay = 27
)

var (
	firstLine = regexp.MustCompile(`pivm: GPIO0 is (\d+)`)
	levelSet  = regexp.MustCompile(`gpio_value: (\d+) set ([01])`)
)

// levels are the levels that a line was set to since power-on, in order, as the kernel told on the console. What the
// kernel has not printed yet is waited for, while there is power.
func (m *machine) levels(t *testing.T, line int) string {
	t.Helper()
	if m.running() {
		mark := fmt.Sprintf("pivm: all after %d scripts", m.scripts)
		m.sh(t, "echo '<2>"+mark+"' > /dev/kmsg")
		await(t, eventTimeout, "the console", func() bool { return strings.Contains(m.consoleText(t), mark) })
	}
	console := m.consoleText(t)
	first := firstLine.FindStringSubmatch(console)
	if first == nil {
		t.Fatalf("the guest has no GPIO chip:\n%s", console)
	}
	base, err := strconv.Atoi(first[1])
	if err != nil {
		t.Fatal(err)
	}
	var levels strings.Builder
	for _, set := range levelSet.FindAllStringSubmatch(console, -1) {
		if set[1] == strconv.Itoa(base+line) {
			levels.WriteString(set[2])
		}
	}
	return levels.String()
}

// steps leaves out of levels what changed nothing.
func steps(levels string) string {
	return string(slices.Compact([]byte(levels)))
}

// level is the level of a line now, as the kernel has it.
func (m *machine) level(t *testing.T, line int) string {
	t.Helper()
	return strings.TrimSpace(m.sh(t, fmt.Sprintf("cat /run/gpio-sim/sim_gpio%d/value", line)))
}

// wantLevels compares the levels of all three outputs.
func (m *machine) wantLevels(t *testing.T, ledLevel, fanLevel, relayLevel string) {
	t.Helper()
	got := []string{m.level(t, led), m.level(t, fan), m.level(t, relay)}
	if want := []string{ledLevel, fanLevel, relayLevel}; !slices.Equal(got, want) {
		t.Errorf("LED, fan and relay are at %v, want %v", got, want)
	}
}
