//go:build pivm

package pivm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pinseal/internal/freeport"
)

// Generous, because they only bound how long a test that fails takes.
const (
	bootTimeout   = 4 * time.Minute
	scriptTimeout = 3 * time.Minute
	eventTimeout  = 2 * time.Minute
)

// machine is one emulated Pi: a disk that lasts, and QEMU while the power is on.
type machine struct {
	dir   string // the disk, the folder shared with the guest, the consoles
	image string
	port  string // on this host's loopback: the guest's port 8883

	boots   int
	scripts int
	qemu    *exec.Cmd
	off     chan struct{} // closed when QEMU has ended
	console string        // of this boot
}

// newMachine makes the image if there is none for this recipe, and an empty machine.
func newMachine(t *testing.T) *machine {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address) // it has both
	m := &machine{dir: t.TempDir(), image: image(t), port: port}
	m.host(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", filepath.Join(m.image, "root.img"), m.path("disk"))
	t.Cleanup(func() {
		if m.running() {
			m.cut(t)
		}
	})
	return m
}

// image gives the folder of the image, keyed by its recipe.
func image(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "pinseal-pi")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(cache, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() //nolint:errcheck // nothing is written; this only ends the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(cache, recipe(t))
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		recipe := exec.CommandContext(t.Context(), "./image.sh", folder)
		recipe.Stderr = os.Stderr // its progress
		if err := recipe.Run(); err != nil {
			t.Fatalf("making the image: %v", err)
		}
	}
	return folder
}

// recipe is a short hash of everything that goes into the image besides Debian.
func recipe(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("guest/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, name := range append(files, "image.sh") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(fmt.Appendf(all, "%s %d\n", name, len(data)), data...)
	}
	sum := sha256.Sum256(all)
	return fmt.Sprintf("%x", sum[:6])
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// shared is the folder that the guest sees as /run/pivm.
func (m *machine) shared(name string) string { return filepath.Join(m.dir, "shared", name) }

func (m *machine) running() bool {
	if m.off == nil {
		return false
	}
	select {
	case <-m.off:
		return false
	default:
		return true
	}
}

// boot turns the power on and waits until the guest takes scripts. Options are QEMU's.
func (m *machine) boot(t *testing.T, options ...string) {
	t.Helper()
	_ = os.Remove(m.shared("up"))
	if err := os.MkdirAll(m.shared(""), 0o755); err != nil {
		t.Fatal(err)
	}
	m.boots++
	m.console = m.path(fmt.Sprintf("console.%d", m.boots))
	// It outlives the test that boots it, and its context. gpio:* with tp_printk: the kernel tells every change of a line on the console, also the last ones before a cut.
	kernel := "console=ttyAMA0 loglevel=5 nokaslr audit=0 initcall_blacklist=pl061_gpio_driver_init " +
		"systemd.show_status=0 trace_event=gpio:* tp_printk"
	m.qemu = exec.CommandContext(context.Background(), "qemu-system-aarch64", append([]string{
		"-nodefaults", "-display", "none", "-machine", "virt,gic-version=3", "-accel", "tcg,thread=multi",
		"-cpu", "cortex-a72", "-smp", "2", "-m", "512", "-kernel", m.image + "/vmlinuz", "-initrd", m.image + "/initrd.gz",
		"-append", kernel, "-drive", "if=none,id=disk,format=qcow2,file=" + m.path("disk"), "-device", "virtio-blk-pci,drive=disk",
		"-fsdev", "local,id=shared,security_model=none,path=" + m.shared(""), "-device", "virtio-9p-pci,fsdev=shared,mount_tag=pivm",
		"-netdev", fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:%s-10.0.2.15:8883", m.port),
		"-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci", "-serial", "file:" + m.console,
	}, options...)...)
	m.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var complaint bytes.Buffer
	m.qemu.Stderr = &complaint
	if err := m.qemu.Start(); err != nil {
		t.Fatalf("starting QEMU: %v", err)
	}
	qemu, off := m.qemu, make(chan struct{})
	m.off = off
	go func() {
		_ = qemu.Wait() // it is killed in the end: its status says nothing
		close(off)
	}()
	await(t, bootTimeout, "the guest to take scripts", func() bool {
		if !m.running() {
			t.Fatalf("QEMU has ended: %s\n%s", complaint.String(), m.consoleText(t))
		}
		_, err := os.Stat(m.shared("up"))
		return err == nil
	})
}

// cut pulls the plug.
func (m *machine) cut(t *testing.T) {
	t.Helper()
	if err := m.qemu.Process.Kill(); err != nil {
		t.Errorf("pulling the plug: %v", err)
	}
	<-m.off
}

// sh runs a script in the guest as root, must see it succeed and returns what it printed.
func (m *machine) sh(t *testing.T, script string) string {
	t.Helper()
	out, status := m.try(t, script)
	if status != 0 {
		t.Fatalf("in the guest: status %d of\n%s\n%s", status, script, out)
	}
	return out
}

// try runs a script in the guest as root and returns what it printed, and its status.
func (m *machine) try(t *testing.T, script string) (string, int) {
	t.Helper()
	return m.start(t, script)(t)
}

// start has a script run in the guest; the result waits for its end.
func (m *machine) start(t *testing.T, script string) (wait func(*testing.T) (string, int)) {
	t.Helper()
	m.scripts++
	name := fmt.Sprintf("script-%d", m.scripts)
	text := "set -eu -o pipefail\n" + script + "\n"
	if err := os.WriteFile(m.shared(name+".new"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(m.shared(name+".new"), m.shared(name+".sh")); err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) (string, int) {
		t.Helper()
		await(t, scriptTimeout, "the guest to run\n"+script, func() bool {
			if !m.running() {
				t.Fatalf("the machine went away while it ran\n%s\n%s", script, m.consoleText(t))
			}
			_, err := os.Stat(m.shared(name + ".status"))
			return err == nil
		})
		out, err := os.ReadFile(m.shared(name + ".out"))
		if err != nil {
			t.Fatal(err)
		}
		status, err := os.ReadFile(m.shared(name + ".status"))
		if err != nil {
			t.Fatal(err)
		}
		code, err := strconv.Atoi(strings.TrimSpace(string(status)))
		if err != nil {
			t.Fatalf("status of a script: %v", err)
		}
		return string(out), code
	}
}

// share puts a file where the guest finds it in /run/pivm.
func (m *machine) share(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(m.shared(""), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.shared(filepath.Base(file)), data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// host runs a program on this machine and returns what it printed.
func (m *machine) host(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (m *machine) consoleText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(m.console)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// await asks until the answer is yes.
func await(t *testing.T, timeout time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for %s", timeout, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// progress tells at once how far the suite is: go test shows logs at the end only.
func progress(format string, args ...any) {
	fmt.Printf("pi %s %s\n", stopwatch(), fmt.Sprintf(format, args...))
}

// stopwatch is the time since the suite began.
var stopwatch = sync.OnceValue(func() func() string {
	began := time.Now()
	return func() string { return fmt.Sprintf("%4.0f s", time.Since(began).Seconds()) }
})()
