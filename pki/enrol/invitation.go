package enrol

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"

	"pinseal/pki"
)

// Invitation is what a device needs to join a node, in one line.
type Invitation struct {
	Host string // of the node's enrolment
	Port uint16
	Name string // that the device gets
	Code string // a secret until it was used
	// Fingerprint is the authority's, [pki.Fingerprint].
	Fingerprint string
}

const codeLength = 26 // of [NewCode]

// String is the line: HOST:PORT/NAME/CODE/FINGERPRINT.
func (i Invitation) String() string {
	return strings.Join([]string{i.address(), i.Name, i.Code, i.Fingerprint}, "/")
}

func (i Invitation) address() string { return net.JoinHostPort(i.Host, strconv.Itoa(int(i.Port))) }

// ParseInvitation reads a line; white space around it is left out.
func ParseInvitation(line string) (Invitation, error) {
	parts := strings.Split(strings.TrimSpace(line), "/")
	if len(parts) != 4 {
		return Invitation{}, fmt.Errorf("not HOST:PORT/NAME/CODE/FINGERPRINT: it has %d of 4 parts", len(parts))
	}
	host, portText, err := net.SplitHostPort(parts[0])
	port, portErr := strconv.ParseUint(portText, 10, 16)
	if err != nil || portErr != nil || host == "" || port == 0 || strings.ContainsAny(host, " \t\r\n") {
		return Invitation{}, fmt.Errorf("%.80q is not a host and a port", parts[0])
	}
	i := Invitation{host, uint16(port), parts[1], strings.ToUpper(parts[2]), strings.ToLower(parts[3])}
	if !pki.ValidName(i.Name) {
		return Invitation{}, fmt.Errorf("%.80q is not a device's name", i.Name)
	}
	if len(i.Code) != codeLength || strings.Trim(i.Code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return Invitation{}, fmt.Errorf("the code has not %d letters and digits", codeLength)
	}
	if raw, err := hex.DecodeString(i.Fingerprint); err != nil || len(raw) != sha256.Size {
		return Invitation{}, fmt.Errorf("%.80q is not a SHA-256 fingerprint", parts[3])
	}
	return i, nil
}
