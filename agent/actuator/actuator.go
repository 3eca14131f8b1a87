package actuator

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Driver drives a line, or something else that knows levels from 0, off, to 255. What knows only off and on takes every
// level above 0 as on. An actuator calls it from one goroutine at a time.
type Driver interface {
	// Drive returns when the level has changed, and nil only if it is known to have.
	Drive(level uint8) error
	// Level is what it really is, as far as can be told, also after an error.
	Level() uint8
}

// Store keeps a Record over restarts.
type Store interface {
	// Save returns when the record is durable.
	Save(r Record) error
}

const (
	// retryEvery is how often a line is told again to go off that does not.
	retryEvery = time.Second
	// saveAfter is how long an output must have been on to be on again after a restart. It spares the disk whoever
	// switches quickly; that it is off is kept at once.
	saveAfter = 5 * time.Second
	// A crash does not say when it happens: how long ago an output was on is known as exactly as its record is new. One
	// that stays on is saved again every twentieth of Restore, but not more often than this.
	saveEvery = 30 * time.Second
)

// Config is what an actuator is made of.
type Config struct {
	Name   string
	Driver Driver // its level at New is the initial one
	Dims   bool   // Driver knows more levels than off and on
	Rules  Rules
	Store  Store // nil: nothing is kept. Rules.Switches needs one to hold over restarts.
	// Restore is how old a state may be that Resume restores; 0: none is, nor kept.
	Restore time.Duration
	Log     *slog.Logger // of what no command was answered with; may be nil
}

// Actuator runs a [Machine] on a [Driver]. It is safe for concurrent use.
type Actuator struct {
	cfg    Config
	origin time.Time

	// What others tell of, who must not wait until the lock is free: a disk or a line may take its time under it.
	up      atomic.Bool // the broker is
	starved atomic.Bool // the node's watchdog is

	mu      sync.Mutex
	machine *Machine
	timer   *time.Timer
	closed  bool
	failing bool          // the last attempt to drive went wrong
	unkept  bool          // the last attempt to keep the state did
	stored  Record        // as last saved
	waiting bool          // stored is still to be judged by Resume: nothing may take its place
	saveAt  time.Duration // never: nothing is to be saved
	savedAt time.Duration // when stored was made, or is as good as made
	shown   Status
	until   time.Duration // of shown
	changed func()

	saves   uint64        // counts the records to be saved
	saving  chan struct{} // holds one while a record is being saved; taken with mu held, or without
	written uint64        // the last of saves that was, of what saving guards
}

// New makes an actuator of a driver that is at its initial level. It drives nothing yet.
func New(cfg Config) (*Actuator, error) {
	on := cfg.Driver.Level() > 0
	if err := cfg.Rules.Check(on); err != nil {
		return nil, fmt.Errorf("output %s: %w", cfg.Name, err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Actuator{cfg: cfg, origin: time.Now(), saveAt: never, changed: func() {}, saving: make(chan struct{}, 1)}
	a.machine = NewMachine(cfg.Name, cfg.Rules, 0, on)
	a.shown, a.until = a.machine.Status(0, cfg.Dims)
	a.timer = time.AfterFunc(time.Hour, a.wake)
	a.timer.Stop()
	return a, nil
}

// Recall takes over a record of before a restart, made elapsed ago; where nobody knows how long, 0 errs on the side of
// the rules. It comes before everything else.
func (a *Actuator) Recall(r Record, elapsed time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored, a.waiting = r, r.On && a.cfg.Restore > 0
	a.savedAt = a.now() + saveAfter - a.saveEvery() // what is resumed is saved again soon
	a.machine.Recall(a.now(), r, elapsed)
}

// Resume has the output on again as it was in the record that was recalled, elapsed before now, and says whether it
// will be: not if that is too long ago, nor if it was commanded since. See Machine.Resume.
func (a *Actuator) Resume(elapsed time.Duration) (resumes bool) {
	a.change(func(now time.Duration) {
		resumes = a.waiting && elapsed <= a.cfg.Restore && a.machine.Resume(now, a.stored, elapsed)
		a.waiting = false
	})
	return resumes
}

// Do carries out a command and returns when the line has changed. The detail says how a rule changed what was asked
// for. An error is a RefusedError, os.ErrClosed, or what the line or the disk did wrong; then the output is off, or will
// be as soon as the line obeys.
func (a *Actuator) Do(c Command) (detail string, err error) {
	a.mu.Lock()
	defer a.tell()
	defer a.mu.Unlock()
	if a.closed {
		return "", fmt.Errorf("output %s: %w", a.cfg.Name, os.ErrClosed)
	}
	if detail, err = a.machine.Do(a.look(), c); err != nil {
		return "", err
	}
	a.waiting = false
	// Also where it is as it should be: what a command asked for was looked at when it is answered.
	return detail, a.settle(true)
}

// Online tells whether the broker can be heard. Until it is told so for the first time it cannot. It does not wait.
func (a *Actuator) Online(up bool) {
	a.up.Store(up)
	go a.wake()
}

// Healthy tells whether the node's watchdog is fed. It does not wait.
func (a *Actuator) Healthy(ok bool) {
	if a.starved.Swap(!ok) == ok {
		go a.wake()
	}
}

// look has the machine see what others told of, and gives the time.
func (a *Actuator) look() time.Duration {
	now := a.now()
	a.machine.Online(now, a.up.Load())
	a.machine.Healthy(!a.starved.Load())
	return now
}

// change changes something that may change what the line has to do.
func (a *Actuator) change(f func(now time.Duration)) {
	a.mu.Lock()
	defer a.tell()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	f(a.look())
	_ = a.settle(false) // was logged
}

func (a *Actuator) wake() { a.change(func(time.Duration) {}) }

// Status shows the output as it is.
func (a *Actuator) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	s, until := a.machine.Status(now, a.cfg.Dims)
	if until != never {
		s.Until = time.Now().Add(until - now).Round(time.Second).UTC()
	}
	return s
}

// Watch has f called after every change of the status, by whoever caused it, one call at a time not promised. It
// replaces an earlier f.
func (a *Actuator) Watch(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed = f
}

// tell calls the watcher where there is something to see. The lock is not held.
func (a *Actuator) tell() {
	a.mu.Lock()
	shown, until := a.machine.Status(a.now(), a.cfg.Dims)
	news := shown != a.shown || until != a.until
	a.shown, a.until = shown, until
	changed := a.changed
	a.mu.Unlock()
	if news {
		changed()
	}
}

// Stop ends what the actuator does: it drives nothing any more. The line stays as it is: its exit level is its driver's.
func (a *Actuator) Stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.timer.Stop()
}

// Close is Stop, and keeps what is to outlive the actuator: the disk may take its time for that. A second Close does
// nothing.
func (a *Actuator) Close() error {
	a.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.saveAt == never {
		return nil
	}
	a.saveAt = never
	return a.save(a.machine.Record(a.now()))
}

func (a *Actuator) now() time.Duration { return time.Since(a.origin) }

// settle drives the line to where the machine wants it, keeps what must be kept and sets the timer.
func (a *Actuator) settle(always bool) error {
	level, next := a.machine.Step(a.now())
	var err error
	if always || level != a.machine.level {
		err = a.drive(level)
		_, next = a.machine.Step(a.now()) // now that the line is where it was wanted
	}
	a.noteFailure(err)
	if err != nil {
		// What does not go on is given up, what does not go off is tried again.
		a.machine.Abandon(a.now())
		next = a.now() + retryEvery
	}
	a.keep()
	a.sleep(min(next, a.saveAt))
	return err
}

func (a *Actuator) drive(level uint8) error {
	if level > 0 && a.machine.level == 0 && a.cfg.Rules.Switches > 0 && a.cfg.Store != nil {
		r := a.machine.Record(a.now())
		r.Switched = append(r.Switched, 0)
		if err := a.save(r); err != nil {
			return err
		}
	}
	err := a.cfg.Driver.Drive(level)
	a.machine.Driven(a.now(), a.cfg.Driver.Level())
	if err == nil && (level > 0) != (a.machine.level > 0) {
		err = errors.New("the line is not as it was driven")
	}
	return err
}

// noteFailure logs the first of several failures.
func (a *Actuator) noteFailure(err error) {
	if err != nil && !a.failing {
		a.cfg.Log.Error("output does not follow", "output", a.cfg.Name, "error", err)
	}
	a.failing = err != nil
}

// keep saves what Resume needs: at once when the output is off that is kept as on, otherwise after a while, and again as
// long as it is on.
func (a *Actuator) keep() {
	if a.cfg.Restore == 0 || a.waiting || a.cfg.Store == nil {
		return
	}
	now := a.now()
	r := a.machine.Record(now)
	same := r.On == a.stored.On && r.Level == a.stored.Level
	switch {
	case a.machine.pending, same && !r.On:
		a.saveAt = never
		return
	case same:
		a.saveAt = a.savedAt + a.saveEvery()
	case r.On:
		a.saveAt = min(a.saveAt, now+saveAfter)
	}
	if r.On && now < a.saveAt {
		return
	}
	a.saveAt, a.savedAt = never, now
	if r.On {
		a.saveAt = now + a.saveEvery()
		// The disk may take its time, and a rule must be able to switch off meanwhile.
		a.saves++
		a.stored = r
		go func(number uint64) { a.noteSaved(a.write(number, r)) }(a.saves)
		return
	}
	if err := a.save(r); err != nil {
		a.notKept(err)
	}
}

func (a *Actuator) saveEvery() time.Duration { return max(saveEvery, a.cfg.Restore/20) }

func (a *Actuator) noteSaved(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		a.unkept = false
	case !a.closed:
		a.notKept(err)
		_ = a.settle(false) // sets the timer; was logged
	}
}

// notKept has it tried again, and logs the first of several failures.
func (a *Actuator) notKept(err error) {
	if !a.unkept {
		a.cfg.Log.Error("the state of an output is not kept", "output", a.cfg.Name, "error", err)
	}
	a.unkept = true
	a.stored = Record{On: true} // at no level: whatever is, is something else
	a.saveAt = a.now() + saveAfter
}

// save returns when a record is durable.
func (a *Actuator) save(r Record) error {
	a.saves++
	if err := a.write(a.saves, r); err != nil {
		return err
	}
	a.stored, a.unkept = r, false
	return nil
}

// write saves a record unless a later one was.
func (a *Actuator) write(number uint64, r Record) error {
	a.saving <- struct{}{}
	defer func() { <-a.saving }()
	if number < a.written {
		return nil
	}
	if err := a.cfg.Store.Save(r); err != nil {
		return fmt.Errorf("keeping the state of output %s: %w", a.cfg.Name, err)
	}
	a.written = number
	return nil
}

func (a *Actuator) sleep(until time.Duration) {
	if until == never {
		a.timer.Stop()
		return
	}
	a.timer.Reset(max(0, until-a.now()))
}
