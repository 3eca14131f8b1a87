// Package freeport finds ports for the servers that tests and benchmarks start as other programs.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// The ports lie below those that the kernel gives to outgoing connections and to whoever asks for port 0 (from 32768 on:
// ip_local_port_range in Linux's Documentation/networking/ip-sysctl.rst). One of those may be taken before the server
// gets it, and a connection closed a minute ago keeps a server from it that does not set SO_REUSEADDR.
const (
	first = 10_000
	count = 20_000
	tries = 200
)

// Address gives HOST:PORT of the loopback interface on which nobody listens. No other call gives the same one while
// this process lives, neither here nor in another process of the machine.
func Address() (string, error) {
	var err error
	for range tries {
		port := first + rand.IntN(count) //nolint:gosec // which one does not matter
		if err = errors.Join(reserve(port), tryBind(port)); err == nil {
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
		}
	}
	return "", fmt.Errorf("no free port after %d tries: %w", tries, err)
}

// reserve gives the port a name in the kernel that one process can hold. It is held until the process ends: the socket
// is never closed.
func reserve(port int) error {
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Bind(socket, &syscall.SockaddrUnix{Name: fmt.Sprintf("@pinseal-port-%d", port)}); err != nil {
		return errors.Join(err, syscall.Close(socket))
	}
	return nil
}

// tryBind binds as a server does that asks for nothing special: package net would set SO_REUSEADDR.
func tryBind(port int) error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = syscall.Bind(socket, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	return errors.Join(err, syscall.Close(socket))
}
