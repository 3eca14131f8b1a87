package gpio

import (
	"context"
	"encoding/binary"
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
	turn   chan struct{} // held by the one who waits for an edge: the deadline belongs to the file, not to the waiter

	mu     sync.Mutex // of everything below
	file   *os.File   // nil until claimed
	closed bool
	output bool
	pull   Pull
	edge   gpio.Edge
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
	if err := l.configure(uapiLineConfig{flags: flags}); err != nil {
		return err
	}
	l.output, l.pull, l.edge = false, pull, edge
	// Edges of another life, and the one that the change of the bias itself made.
	for range eventBuffer {
		if _, err := l.readEvent(); err != nil {
			break // EAGAIN: there are no more
		}
	}
	return nil
}

// eventBuffer is how many edges the kernel keeps for a line; it drops the oldest beyond that.
const eventBuffer = 16

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
	request := uapiLineRequest{config: config, lines: 1}
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
func (l *kernelLine) WaitEdge(ctx context.Context) (Level, error) {
	select {
	case l.turn <- struct{}{}:
	default:
		select {
		case l.turn <- struct{}{}:
		case <-ctx.Done():
			return Low, ctx.Err()
		}
	}
	defer func() { <-l.turn }()

	l.mu.Lock()
	file, waits := l.file, !l.closed && l.edge != gpio.NoEdge
	level, err := Low, os.ErrClosed
	if waits {
		level, err = l.readEvent() // even when ctx has ended: an edge that is there needs no waiting
	}
	l.mu.Unlock()
	if !waits || !errors.Is(err, unix.EAGAIN) {
		return level, err
	}
	return waitEvent(ctx, file)
}

// readEvent takes an edge that is there already; the error is EAGAIN if there is none.
func (l *kernelLine) readEvent() (Level, error) {
	var event [eventBytes]byte
	err := control(l.file, func(fd uintptr) error {
		_, err := unix.Read(int(fd), event[:])
		return err
	})
	return eventLevel(event), err
}

// waitEvent waits for an edge until ctx ends. Only one at a time may wait on a file.
func waitEvent(ctx context.Context, file *os.File) (Level, error) {
	if err := file.SetReadDeadline(time.Time{}); err != nil {
		return Low, err
	}
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(expired)
		_ = file.SetReadDeadline(longAgo()) // fails only on a closed file, which ends the wait too
	})
	var event [eventBytes]byte
	_, err := file.Read(event[:])
	if !stop() {
		<-expired // or it would end the next one's wait
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return eventLevel(event), err
}

func longAgo() time.Time { return time.Unix(1, 0) }

func eventLevel(event [eventBytes]byte) Level {
	return binary.NativeEndian.Uint32(event[eventIDStart:]) == eventRisingEdge
}
