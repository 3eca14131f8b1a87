package systemd

import (
	_ "embed"
	"path"
	"strings"
)

// The names of the units.
const (
	ServiceUnit = "pinseal.service"
	SocketUnit  = "pinseal.socket"
	SensorUnit  = "pinseal-pub@.service"
	RenewUnit   = "pinseal-renew.service"
	TimerUnit   = "pinseal-renew.timer" // wanted by the service
)

// Options adapt the installed files to where they go.
type Options struct {
	// Prefix is "/usr" in a package of the distribution, "/usr/local" for what
	// an administrator installs. The program is in its bin.
	Prefix string
	// Arch is the program's GOARCH. A 32-bit ARM program may run under a 64-bit
	// system, and must then be let to do its own system calls.
	Arch string
}

// Bin is the folder of the program.
func (o Options) Bin() string { return path.Join(o.Prefix, "bin") }

// File is a file to install; it is for everybody to read (0644).
type File struct {
	Path string // absolute
	Data []byte
}

var (
	//go:embed files/pinseal.service
	service string
	//go:embed files/pinseal.socket
	socket string
	//go:embed files/pinseal-pub@.service
	sensor string
	//go:embed files/pinseal-renew.service
	renew string
	//go:embed files/pinseal-renew.timer
	timer string
	//go:embed files/sysusers.conf
	sysusers string
	//go:embed files/gpio.rules
	gpioRules string
)

// Files returns everything that makes pinseal a service: units, the user
// (sysusers.d(5)) and the group of the GPIO devices (udev(7)).
func Files(o Options) []File {
	lib := path.Join(o.Prefix, "lib")
	return []File{
		{path.Join(lib, "systemd/system", ServiceUnit), o.fill(service)},
		{path.Join(lib, "systemd/system", SocketUnit), o.fill(socket)},
		{path.Join(lib, "systemd/system", SensorUnit), o.fill(sensor)},
		{path.Join(lib, "systemd/system", RenewUnit), o.fill(renew)},
		{path.Join(lib, "systemd/system", TimerUnit), o.fill(timer)},
		{o.Sysusers(), o.fill(sysusers)},
		{path.Join(lib, "udev/rules.d/60-pinseal-gpio.rules"), o.fill(gpioRules)},
	}
}

// Sysusers is where the file goes that makes the user.
func (o Options) Sysusers() string { return path.Join(o.Prefix, "lib/sysusers.d/pinseal.conf") }

func (o Options) fill(text string) []byte {
	architectures := "native"
	if o.Arch == "arm" {
		architectures = "native arm"
	}
	return []byte(strings.NewReplacer("@BIN@", o.Bin(), "@ARCHITECTURES@", architectures).Replace(text))
}
