// Package gpio claims lines of a GPIO chip by name and drives outputs without a glitch.
//
// # What goes in and out
//
// [OpenChip] finds a chip of the kernel by its label, [OpenSim] makes a simulated one in a folder, and the package
// gpiotest has a fake that injects faults. All three are a [Chip] and pass the same conformance test. [OpenOutput]
// turns one line of a chip into an [Output], which knows active-low wiring, an initial state and an exit state;
// [OpenDimmer] into one with levels between off and on. [OpenPWM] drives a channel of the kernel's PWM instead.
//
// # Guarantees
//
//   - A line becomes an output together with its initial level, in one request to the kernel: a lit LED stays lit over
//     a restart, and a relay does not click.
//   - Reading an output back never changes its direction.
//   - A line is held until it is closed: nobody else can claim it meanwhile.
//   - Errors are one line and name the cure.
//
// # Why the kernel is asked directly
//
// The lines implement periph's gpio.PinIO, so periph's device drivers can use them, but periph's own gpioioctl driver
// is not used: its first Out(High) drives low first, its Read turns an output into an input, it loses the error number,
// reports consumers as they were at start, and where /dev holds a second name of a chip (a Raspberry Pi 5 does) its
// initialisation closes file descriptor 0. The character device's ABI v2 is six ioctls; they are in uapi.go.
//
// # What it does not do
//
// The level of a line after its release is up to the kernel's driver and the pull resistors: many drivers leave it as it
// was, some turn it into an input. Wire a load so that an open line is its safe state.
package gpio
