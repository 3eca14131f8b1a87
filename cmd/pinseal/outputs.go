package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pinseal/agent"
	"pinseal/agent/actuator"
)

// nodeOutput is an output at work: who decides, the line, and what is kept of it over restarts.
type nodeOutput struct {
	*actuator.Actuator
	config outputConfig
	line   driver
	kept   *actuator.File // nil: nothing is
}

func (n *node) openOutputs() (err error) {
	if len(n.config.Outputs)+len(n.config.Inputs) == 0 && n.config.GPIO.Chip != "sim" {
		return nil // a machine with nothing but sensors need not have lines
	}
	if n.chip, err = openChip(n.config.GPIO.Chip, n.layout); err != nil {
		return err
	}
	locks := map[name]*actuator.Interlock{}
	for _, o := range n.config.Outputs {
		if o.Interlock != "" && locks[o.Interlock] == nil {
			locks[o.Interlock] = new(actuator.Interlock)
		}
		output, err := n.openOutput(o, locks[o.Interlock])
		if err != nil {
			return fmt.Errorf("output %s: %w", o.Name, err)
		}
		n.outputs = append(n.outputs, output)
		n.log.Info("output held", "output", o.Name, "line", o.where(), "on", output.line.Level() > 0)
	}
	// Only now, when none of a group is on from an earlier life any more.
	for _, o := range n.outputs {
		n.recallOutput(o)
	}
	return nil
}

func (n *node) openOutput(o outputConfig, lock *actuator.Interlock) (*nodeOutput, error) {
	line, err := openDriver(n.chip, n.config.GPIO.Chip == "sim", o, bool(o.Initial))
	if err != nil {
		return nil, err
	}
	output := &nodeOutput{config: o, line: line}
	cfg := actuator.Config{
		Name: string(o.Name), Driver: line, Dims: o.PWM != "", Rules: o.rules(lock), Restore: time.Duration(o.Restore), Log: n.log,
	}
	if o.Restore > 0 || o.MaxSwitches > 0 {
		if err := os.MkdirAll(n.layout.outputs(), 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("making a folder for the states of outputs: %w", err), line.Close())
		}
		output.kept = actuator.NewFile(filepath.Join(n.layout.outputs(), string(o.Name)+".json"), n.clock)
		cfg.Store = output.kept
	}
	if output.Actuator, err = actuator.New(cfg); err != nil {
		return nil, errors.Join(err, line.Close())
	}
	return output, nil
}

// recallOutput tells an output what it was before a restart.
func (n *node) recallOutput(o *nodeOutput) {
	if o.kept == nil {
		return
	}
	kept, err := o.kept.Load()
	if err != nil {
		n.log.Warn("the state of an output before the restart is lost", "output", o.config.Name, "error", err)
		kept.Switched = make([]time.Duration, o.config.MaxSwitches) // all that may have been
	}
	elapsed, _ := kept.Elapsed()
	o.Recall(kept.Record, elapsed)
	n.resumeOutput(o)
}

// resumeOutput restores the state of an output, unless it cannot be told yet how old it is.
func (n *node) resumeOutput(o *nodeOutput) (done bool) {
	if o.config.Restore == 0 {
		return true
	}
	kept, err := o.kept.Load()
	if err != nil || !kept.On {
		return true
	}
	elapsed, known := kept.Elapsed()
	if !known {
		return false
	}
	if o.Resume(elapsed) {
		n.log.Info("output restored", "output", o.config.Name, "age", elapsed.Round(time.Second))
	}
	return true
}

// restoreOutputs waits for the clock where that has to tell how old a state is.
func (n *node) restoreOutputs(ctx context.Context) {
	waiting := n.outputs
	for every := time.NewTicker(time.Second); ; {
		var still []*nodeOutput
		for _, o := range waiting {
			if !n.resumeOutput(o) {
				still = append(still, o)
			}
		}
		if waiting = still; len(waiting) == 0 {
			every.Stop()
			return
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			every.Stop()
			return
		}
	}
}

func (n *node) agentOutputs() []agent.Output {
	var outputs []agent.Output
	for _, o := range n.outputs {
		outputs = append(outputs, agent.Output{
			Name: string(o.config.Name), Topic: string(o.config.Topic), Actuator: o, Dims: o.config.PWM != "",
			PlainTopic: string(o.config.PlainTopic), PlainActions: actions(o.config.PlainActions),
			PlainRate: float64(o.config.PlainRate), PlainBurst: int(o.config.PlainBurst),
		})
	}
	return outputs
}

func (n *node) tellBroker(up bool) {
	for _, o := range n.outputs {
		o.Online(up)
	}
}

func (n *node) tellHealth(ok bool) {
	for _, o := range n.outputs {
		o.Healthy(ok)
	}
}

// closeOutputs drives every output to its exit level, and then keeps what is to outlive the node: the disk may take its
// time. A second time it does nothing.
func (n *node) closeOutputs() error {
	var errs []error
	for _, o := range n.outputs {
		o.Stop()
		errs = append(errs, o.line.Close())
	}
	for _, o := range n.outputs {
		errs = append(errs, o.Close())
	}
	return errors.Join(errs...)
}
