package gpio

import "errors"

// AutoLabel asks OpenChip for the chip behind the 40-pin header of whichever Raspberry Pi this is.
const AutoLabel = "auto"

// OpenChip opens a chip of the kernel: "auto" or "" the Raspberry Pi's header chip, else an exact label
// ("pinctrl-bcm2711"), a name ("gpiochip0") or a path ("/dev/gpiochip0"). Prefer labels: the numbers in names and
// paths have changed from kernel to kernel. Chips that share the label are opened as one, and the one that has the line
// asked for is used. Errors: ErrNoChip (says what there is), ErrPermission.
func OpenChip(which string) (Chip, error) { return nil, errors.ErrUnsupported }
