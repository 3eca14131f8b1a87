package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// canFail says that calls can be made to fail here.
const canFail = true

// change changes the registers of a thread that is stopped at a system call.
func change(pid int, set func(*unix.PtraceRegs)) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &r); err != nil {
		return err
	}
	set(&r)
	return unix.PtraceSetRegs(pid, &r)
}

// skipCall, at the entry, makes it none.
func skipCall(pid int) error {
	return change(pid, func(r *unix.PtraceRegs) { r.Orig_rax = ^uint64(0) })
}

// setLength, at the entry, is for write and pwrite64.
func setLength(pid int, n uint64) error {
	return change(pid, func(r *unix.PtraceRegs) { r.Rdx = n })
}

// setResult, at the exit, has it return an error.
func setResult(pid int, errno syscall.Errno) error {
	return change(pid, func(r *unix.PtraceRegs) { r.Rax = -uint64(errno) })
}
