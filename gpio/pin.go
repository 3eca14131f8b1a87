package gpio

import (
	"context"
	"errors"
	"os"
	"time"

	"periph.io/x/conn/v3/gpio"
	"periph.io/x/conn/v3/physic"
)

// What gpio.PinIO has beyond OutputLine and InputLine.

// String implements conn.Resource.
func (l *kernelLine) String() string { return describe(l.info) }

// Halt implements conn.Resource: it ends a WaitForEdge under way. An output keeps its level.
func (l *kernelLine) Halt() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	if err := l.file.SetReadDeadline(longAgo()); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Name implements pin.Pin.
func (l *kernelLine) Name() string { return l.info.Name }

// Number implements pin.Pin: the offset on the chip.
func (l *kernelLine) Number() int { return l.info.Offset }

// Function implements pin.Pin.
func (l *kernelLine) Function() string {
	l.mu.Lock()
	claimed, output := l.file != nil && !l.closed, l.output
	l.mu.Unlock()
	high := bool(l.Read())
	switch {
	case !claimed:
		return ""
	case output && high:
		return string(gpio.OUT_HIGH)
	case output:
		return string(gpio.OUT_LOW)
	case high:
		return string(gpio.IN_HIGH)
	}
	return string(gpio.IN_LOW)
}

// Read implements gpio.PinIn. It is Low where the line cannot be read.
func (l *kernelLine) Read() Level {
	level, err := l.Level()
	return err == nil && level
}

// WaitForEdge implements gpio.PinIn: a negative timeout waits for ever, 0 only looks.
func (l *kernelLine) WaitForEdge(timeout time.Duration) bool {
	ctx := context.Background()
	if timeout >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	_, err := l.WaitEdge(ctx)
	return err == nil
}

// Pull implements gpio.PinIn.
func (l *kernelLine) Pull() Pull {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pull
}

// DefaultPull implements gpio.PinIn. The kernel does not tell.
func (l *kernelLine) DefaultPull() Pull { return PullNoChange }

// PWM implements gpio.PinOut. The character device has none.
func (l *kernelLine) PWM(gpio.Duty, physic.Frequency) error { return errors.ErrUnsupported }
