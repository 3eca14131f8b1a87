package gpio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/gpio"
)

// kernelLine is a line of a kernel's chip. Its first In or Out claims it with direction, bias and level in one request,
// later ones change it in one request each; that is what periph's gpio.PinIO asks for.
type kernelLine struct {
	device *device
	offset uint32
	info   LineInfo
	turn   turn

	mu     sync.Mutex // of everything below
	file   *os.File   // nil until claimed
	closed bool
	output bool
	pull   Pull
	edge   gpio.Edge
	period time.Duration // of the kernel's debouncing
	number uint32        // of the last edge taken
}

var _ gpio.PinIO = (*kernelLine)(nil)

// Out implements OutputLine and gpio.PinOut.
func (l *kernelLine) Out(level Level) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	values := uapiLineValues{mask: 1}
	if level {
		values.bits = 1
	}
	if l.output && !l.closed {
		return ioctl(l.file, setLineValues, &values)
	}
	// Direction and level together: the kernel drives the pin at this level from the start.
	config := uapiLineConfig{flags: flagOutput, attributes: 1}
	config.attribute[0].id = attrOutputValues
	config.attribute[0].value = values.bits
	config.attribute[0].mask = 1
	if err := l.configure(config); err != nil {
		return err
	}
	l.output, l.pull, l.edge = true, PullNoChange, gpio.NoEdge
	return nil
}

// In implements gpio.PinIn.
func (l *kernelLine) In(pull Pull, edge gpio.Edge) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	flags, err := inputFlags(pull, edge)
	if err != nil {
		return err
	}
	if l.file != nil && l.edge != gpio.NoEdge {
		// The kernel changes the bias before it stops looking for edges, and hands them over a moment later: once it has
		// stopped, all of them are there to be thrown away.
		if err := l.configure(uapiLineConfig{flags: flags &^ (flagEdgeRising | flagEdgeFalling)}); err != nil {
			return err
		}
	}
	if err := l.configure(inputConfig(flags, l.period)); err != nil {
		return err
	}
	l.output, l.pull, l.edge = false, pull, edge
	// Edges of another life, and the one that the change of the bias itself made.
	var event [eventBytes]byte
	for range eventBuffer {
		if l.readEvent(&event) != nil {
			break // EAGAIN: there are no more
		}
		l.number = parseEvent(&event).number
	}
	return nil
}

// Debounce asks the kernel to report only levels that stay for the period, since Linux 5.10: in hardware where that
// can, else by its own timers. An error that is not os.ErrClosed says that it cannot be had here, and nothing changed.
func (l *kernelLine) Debounce(period time.Duration) error {
	l.mu.Lock()
	if l.closed || l.file == nil {
		l.mu.Unlock()
		return os.ErrClosed
	}
	before, pull, edge := l.period, l.pull, l.edge
	l.period = period
	l.mu.Unlock()
	err := l.In(pull, edge)
	if err != nil {
		l.mu.Lock()
		l.period = before
		l.mu.Unlock()
		return errors.Join(err, l.In(pull, edge))
	}
	return nil
}

// inputConfig is the configuration of an input; a period of zero is none.
func inputConfig(flags uint64, period time.Duration) uapiLineConfig {
	config := uapiLineConfig{flags: flags}
	if period > 0 {
		config.attributes = 1
		config.attribute[0].id = attrDebounce
		config.attribute[0].value = debounceValue(period)
		config.attribute[0].mask = 1
	}
	return config
}

// eventBuffer is how many edges the kernel keeps for a line; it drops the oldest beyond that.
const eventBuffer = 64

func inputFlags(pull Pull, edge gpio.Edge) (uint64, error) {
	bias, ok := map[Pull]uint64{PullNoChange: 0, PullFloat: flagBiasDisabled, PullDown: flagPullDown, PullUp: flagPullUp}[pull]
	if !ok {
		return 0, fmt.Errorf("no such pull: %v", pull)
	}
	edges, ok := map[gpio.Edge]uint64{
		gpio.NoEdge: 0, gpio.RisingEdge: flagEdgeRising, gpio.FallingEdge: flagEdgeFalling, gpio.BothEdges: flagEdgeRising | flagEdgeFalling,
	}[edge]
	if !ok {
		return 0, fmt.Errorf("no such edge: %v", edge)
	}
	return flagInput | bias | edges, nil
}

// configure claims the line, or changes the claimed one.
func (l *kernelLine) configure(config uapiLineConfig) error {
	if l.closed {
		return os.ErrClosed
	}
	if l.file != nil {
		_ = l.file.SetReadDeadline(longAgo()) // ends a wait for edges of another kind; fails only on a closed file
		return ioctl(l.file, setLineConfig, &config)
	}
	request := uapiLineRequest{config: config, lines: 1, buffer: eventBuffer}
	request.offsets[0] = l.offset
	copy(request.consumer[:uapiNameSize-1], fmt.Sprintf("pinseal@%d", os.Getpid()))
	err := ioctl(l.device.file, getLine, &request)
	switch {
	case errors.Is(err, unix.EBUSY):
		if now, lookErr := l.device.look(l.offset); lookErr == nil {
			l.info = now
		}
		return busyError(l.info)
	case err != nil:
		return fmt.Errorf("claiming %s: %w", describe(l.info), err)
	}
	// Not blocking, so that the runtime's poller waits for edges and Close wakes the waiter.
	if err := unix.SetNonblock(int(request.fd), true); err != nil {
		_ = unix.Close(int(request.fd)) // reported is why it is of no use
		return fmt.Errorf("claiming %s: %w", describe(l.info), err)
	}
	l.file = os.NewFile(uintptr(request.fd), l.info.Path+":"+l.info.Name)
	return nil
}

// Level implements OutputLine and InputLine.
func (l *kernelLine) Level() (Level, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.file == nil {
		return Low, os.ErrClosed
	}
	values := uapiLineValues{mask: 1}
	err := ioctl(l.file, getLineValues, &values)
	return values.bits&1 == 1, err
}

// Close implements OutputLine and InputLine.
func (l *kernelLine) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// WaitEdge implements InputLine.
func (l *kernelLine) WaitEdge(ctx context.Context) (Edge, error) {
	if err := l.turn.take(ctx); err != nil {
		return Edge{}, err
	}
	defer l.turn.give()

	l.mu.Lock()
	file, waits := l.file, !l.closed && l.edge != gpio.NoEdge
	var event [eventBytes]byte
	err := os.ErrClosed
	if waits {
		err = l.readEvent(&event) // even when ctx has ended: an edge that is there needs no waiting
	}
	l.mu.Unlock()
	if waits && errors.Is(err, unix.EAGAIN) {
		err = readUntil(ctx, file, event[:])
	}
	if err != nil {
		return Edge{}, err
	}
	return l.edgeOf(parseEvent(&event)), nil
}

// readEvent takes an edge that is there already; the error is EAGAIN if there is none.
func (l *kernelLine) readEvent(event *[eventBytes]byte) error {
	return control(l.file, func(fd uintptr) error {
		_, err := unix.Read(int(fd), event[:])
		return err
	})
}

// edgeOf translates an event.
func (l *kernelLine) edgeOf(e uapiLineEvent) Edge {
	edge := Edge{Level: e.id == eventRisingEdge, At: time.Now()}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		if age := now.Nano() - int64(e.timestamp); age >= 0 { //nolint:gosec // nanoseconds since the machine started
			edge.At = edge.At.Add(-time.Duration(age))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.number > l.number+1 && l.number > 0 {
		edge.Lost = e.number - l.number - 1
	}
	l.number = e.number
	return edge
}

// turn is held by the one who waits on a file: a deadline belongs to the file, not to the waiter.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take prefers a free turn to a context that has ended.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) give() { <-t }

// readUntil reads from a file that does not block, until ctx ends. Only one at a time may wait on a file.
func readUntil(ctx context.Context, file *os.File, into []byte) error {
	if file.SetReadDeadline(time.Time{}) != nil {
		return os.ErrClosed // nothing else can fail there
	}
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(expired)
		_ = file.SetReadDeadline(longAgo()) // fails only on a closed file, which ends the wait too
	})
	_, err := file.Read(into)
	if !stop() {
		<-expired // or it would end the next one's wait
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return err
}

func longAgo() time.Time { return time.Unix(1, 0) }
