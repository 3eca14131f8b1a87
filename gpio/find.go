package gpio

import "errors"

// FindLine finds a line by its name ("GPIO17"; upper or lower case where that is unambiguous), by its Broadcom number
// ("17", "BCM17") or by its offset on the chip ("line:17"). On a Raspberry Pi's header chip the Broadcom number also
// finds a line that is named after its other function or not at all. The error is ErrLineNotFound and suggests names.
func FindLine(lines []LineInfo, name string) (LineInfo, error) { return LineInfo{}, errors.ErrUnsupported }
