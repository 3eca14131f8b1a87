// Command pinseal lets a Raspberry Pi act on MQTT messages only when they are genuine.
//
// It is the node (pinseal run), the remote sensor and the operator's command line in one program.
// This package is the only place that wires the others together: flags, configuration, exit codes.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
