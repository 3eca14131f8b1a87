//go:build !amd64

package main

import (
	"errors"
	"syscall"
)

// canFail says that calls can be made to fail here: the registers of other processors are not known.
const canFail = false

func skipCall(int) error                 { return errors.ErrUnsupported }
func setLength(int, uint64) error        { return errors.ErrUnsupported }
func setResult(int, syscall.Errno) error { return errors.ErrUnsupported }
