package gpio

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// The frequencies that a dimmer may have.
const (
	MinFrequency = 10
	MaxFrequency = 20000
)

// DimmerConfig says how a [Dimmer] drives its line.
type DimmerConfig struct {
	Line      string // any spelling that FindLine knows
	ActiveLow bool   // on is electrically low
	Initial   bool   // on or off from the moment the line is claimed
	Exit      bool   // on or off when the dimmer is closed
	Frequency int    // in hertz
}

// Dimmer switches a line on and off so quickly that it seems to be something in between: pulse-width modulation by
// software. Each period costs two system calls and two timers, and its edges come when the scheduler lets them, some
// 0.1 ms late: below a level of about 10 of 255 the light is seen to tremble. At off and fully on nothing runs. It is
// safe for concurrent use.
type Dimmer struct {
	output *Output
	period time.Duration

	mu    sync.Mutex
	level uint8
	wave  *wave // nil while nothing modulates
}

// OpenDimmer claims the line at its initial level. The caller closes the dimmer. Errors: as OpenOutput.
func OpenDimmer(c Chip, cfg DimmerConfig) (*Dimmer, error) {
	if cfg.Frequency < MinFrequency || cfg.Frequency > MaxFrequency {
		return nil, fmt.Errorf("a frequency is from %d to %d Hz", MinFrequency, MaxFrequency)
	}
	o, err := OpenOutput(c, OutputConfig{Line: cfg.Line, ActiveLow: cfg.ActiveLow, Initial: cfg.Initial, Exit: cfg.Exit})
	if err != nil {
		return nil, err
	}
	d := &Dimmer{output: o, period: time.Second / time.Duration(cfg.Frequency)}
	d.level = o.Level()
	return d, nil
}

const fullLevel = 255

// Drive sets the level, from 0, off, to 255. Off and fully on are confirmed as by Output.Set; a level in between begins
// with the next period, and what went wrong with the line meanwhile is reported by the next call.
func (d *Dimmer) Drive(level uint8) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if level > 0 && level < fullLevel {
		return d.modulate(level)
	}
	d.halt()
	err := d.output.Set(level > 0)
	d.level = d.output.Level()
	return err
}

// Level is the level that the line is at, as far as that can be told.
func (d *Dimmer) Level() uint8 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.level
}

// Close drives the exit state and releases the line. A second Close does nothing.
func (d *Dimmer) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.halt()
	err := d.output.Close()
	d.level = d.output.Level()
	return err
}

func (d *Dimmer) modulate(level uint8) error {
	if d.wave == nil {
		if !d.output.open() {
			return fmt.Errorf("dimming line %s: %w", d.output.cfg.Line, os.ErrClosed)
		}
		d.wave = &wave{output: d.output, period: d.period, stop: make(chan struct{}), ended: make(chan struct{}), level: level}
		go d.wave.run()
	}
	d.level = level
	return d.wave.set(level)
}

// halt ends the modulation, if there is one, and returns when the line is left alone.
func (d *Dimmer) halt() {
	if d.wave != nil {
		close(d.wave.stop)
		<-d.wave.ended
		d.wave = nil
	}
}

// wave switches a line on and off.
type wave struct {
	output      *Output
	period      time.Duration
	stop, ended chan struct{}

	mu    sync.Mutex
	level uint8
	err   error // of the line since the last set
}

// set changes the level from the next period on, and tells what went wrong since the last time.
func (w *wave) set(level uint8) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.level, err, w.err = level, w.err, nil
	return err
}

func (w *wave) run() {
	defer close(w.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	until := func(at time.Time) (stopped bool) {
		timer.Reset(time.Until(at))
		select {
		case <-timer.C:
			return false
		case <-w.stop:
			return true
		}
	}
	for begins := time.Now(); ; {
		w.mu.Lock()
		on := w.period * time.Duration(w.level) / fullLevel
		w.mu.Unlock()
		w.drive(true)
		if until(begins.Add(on)) {
			return
		}
		w.drive(false)
		begins = begins.Add(w.period)
		if late := time.Since(begins); late > 0 {
			begins = begins.Add(late) // the machine was busy: what was missed is not made up for
		}
		if until(begins) {
			return
		}
	}
}

// drive does not look whether the line follows: there is no time for that.
func (w *wave) drive(on bool) {
	if err := w.output.line.Out(w.output.level(on)); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err = fmt.Errorf("dimming line %s: %w", w.output.cfg.Line, err)
	}
}
