package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Environment variables that make this program the one that is watched.
const (
	lifeVariable   = "PINSEAL_POWERCUT_LIFE"
	folderVariable = "PINSEAL_POWERCUT_FOLDER"
)

// recorder records what processes do to a folder. The processes run this
// program again, as a life.
//
// They are watched with ptrace(2), so that nothing in the code under test
// knows of it and nothing it writes is missed. That the folder is in the end
// what the events make of it is checked: a way of writing that is not known
// here, such as a writable mapping, is an error.
type recorder struct {
	folder string
	before *disk          // the folder before the first event
	now    *disk          // and as every process sees it
	inodes map[uint64]int // our numbers of files by the kernel's
	events []event

	// Of the process that runs.
	bootID string
	killAt int
	fault  fault
	calls  map[int]call // that have begun, by thread
}

func newRecorder(folder string) (*recorder, error) {
	before, inodes, err := readDisk(folder)
	if err != nil {
		return nil, err
	}
	return &recorder{folder: folder, before: before, now: before.clone(), inodes: inodes}, nil
}

// live runs a life, in which bootID is the machine's, and adds to the events.
// When there are killAt of them the process is killed; 0 lets it end by itself.
func (r *recorder) live(ctx context.Context, name, bootID string, killAt int) error {
	r.bootID, r.killAt, r.calls = bootID, killAt, map[int]call{}
	// Only the thread that started a child may command it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := startChild(name, r.folder)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer func() { _ = child.Release() }()                      // there is nothing to lose
	stop := context.AfterFunc(ctx, func() { _ = child.Kill() }) // it may have ended
	defer stop()
	if err := r.follow(child); err != nil {
		return fmt.Errorf("recording %s: %w", name, errors.Join(err, context.Cause(ctx)))
	}
	after, _, err := readDisk(r.folder)
	if err == nil && !after.equal(r.now) {
		err = fmt.Errorf("recording %s: something was written in a way that is not known here", name)
	}
	return err
}

// startChild starts the child, which stops at its first instruction.
func startChild(name, folder string) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }() // nothing was written
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return os.StartProcess(self, []string{self}, &os.ProcAttr{
		// The race detector waits a second at the end of a program otherwise.
		Env:   append(os.Environ(), lifeVariable+"="+name, folderVariable+"="+folder, "GORACE=atexit_sleep_ms=0"),
		Files: []*os.File{null, null, os.Stderr},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
}

// call is a system call between its entry and its exit.
type call struct {
	number uint64
	args   [6]uint64
	events int // how many had happened when it began
	event  *event
	fails  syscall.Errno // it is not made, and returns this
}

// follow lets the child run to its end.
func (r *recorder) follow(child *os.Process) error {
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
		unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_EXITKILL
	var failed error
	first := true
	for {
		var status unix.WaitStatus
		// Only children of this thread: the others belong to somebody else.
		pid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // no child is left
			return failed
		case pid == child.Pid && r.killed() && status.Signaled():
		case pid == child.Pid && (status.Signaled() || status.Exited() && status.ExitStatus() != 0):
			failed = errors.Join(failed, fmt.Errorf("the child ended with status %#x", uint32(status)))
		case status.Stopped() && first:
			first = false
			err = unix.PtraceSetOptions(pid, options)
		case status.Stopped() && status.StopSignal() == unix.SIGTRAP|0x80:
			err = r.stopped(pid)
		}
		if r.killed() {
			_ = child.Kill() // it may have ended
		} else if err == nil && status.Stopped() {
			err = unix.PtraceSyscall(pid, signalToDeliver(status))
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: it was killed meanwhile
			failed = errors.Join(failed, err)
			_ = child.Kill() // it may have ended
		}
	}
}

func (r *recorder) killed() bool { return r.killAt > 0 && len(r.events) >= r.killAt }

// signalToDeliver is 0 where the stop is ptrace's own: a system call, a new
// thread.
func signalToDeliver(status unix.WaitStatus) int {
	switch s := status.StopSignal(); s {
	case unix.SIGTRAP, unix.SIGTRAP | 0x80, unix.SIGSTOP:
		return 0
	default:
		return int(s)
	}
}

// stopped handles the entry or the exit of a system call.
func (r *recorder) stopped(pid int) error {
	// struct ptrace_syscall_info of ptrace(2), the same on every architecture.
	var info [88]byte
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(pid), uintptr(len(info)),
		uintptr(unsafe.Pointer(&info)), 0, 0) //nolint:gosec // x/sys has no function for this request
	if errno != 0 {
		return fmt.Errorf("asking for a system call: %w", errno)
	}
	word := func(i int) uint64 { return binary.NativeEndian.Uint64(info[24+8*i:]) }
	switch info[0] {
	case unix.PTRACE_SYSCALL_INFO_ENTRY:
		c := call{number: word(0), events: len(r.events)}
		for i := range c.args {
			c.args[i] = word(1 + i)
		}
		err := r.enter(pid, &c)
		if err == nil {
			err = r.strike(pid, &c)
		}
		r.calls[pid] = c
		return err
	case unix.PTRACE_SYSCALL_INFO_EXIT:
		c, ok := r.calls[pid]
		delete(r.calls, pid)
		if c.fails != 0 {
			return r.failed(pid, c)
		}
		result := int64(word(0)) //nolint:gosec // a signed number in the structure
		if !ok || result < 0 {
			return nil // it changed nothing
		}
		return r.exit(pid, c, int(result))
	}
	return nil
}

// memory reads n bytes of the child.
func memory(pid int, address uint64, n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, n)
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	got, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(address), Len: n}}, 0)
	if err == nil && got != n {
		err = fmt.Errorf("%d of %d bytes", got, n)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the child's memory: %w", err)
	}
	return b, nil
}

// text reads a string that ends with a zero byte. It reads to the end of a
// page at most: the next may not be there.
func text(pid int, address uint64) (string, error) {
	var s []byte
	const page = 4096
	for {
		b, err := memory(pid, address, int(page-address%page))
		if err != nil {
			return "", err
		}
		before, _, ended := bytes.Cut(b, []byte{0})
		if s = append(s, before...); ended {
			return string(s), nil
		}
		address += uint64(len(b))
	}
}
