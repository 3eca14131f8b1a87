// Package actuator decides what an output does: it reads commands, plays what they ask for over time, and holds the
// output to its safety rules, which win over every command.
//
// Three parts, each of use without the next:
//
//   - [Parse] reads a [Command] from its JSON. docs/outputs.md has the grammar.
//   - [Machine] is the decision: what was asked for, the rules and the time give the level that the line must have, and
//     when to look again. It knows neither clock nor line, only what it is told.
//   - [Actuator] runs a machine on a [Driver] with one timer. While nothing changes it costs nothing.
//
// # What the rules promise
//
// Whatever is commanded, in whatever order and speed: the output is never on for longer than MaxOn without a break; never
// on for less than MinOn, unless another rule ends it, nor off for less than MinOff; never switched on more than Switches
// times in any Window; never on together with another of its [Interlock]; never on for longer than Hold after the last
// signed command; and at its exit level while the broker or the node's own watchdog is lost. Switching off is always
// possible, but for MinOn, and where on is the exit level that a rule demands. After a restart the output has been off only since then, for MinOff; what Switches counts
// and what was on before is kept in a [Store].
package actuator
