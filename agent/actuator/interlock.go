package actuator

import "sync"

// Interlock lets at most one output of a group be on. The zero value is free. It is safe for concurrent use.
type Interlock struct {
	mu     sync.Mutex
	holder *Machine
	name   string
}

// take gives the group to m unless another has it, whose name it returns then. A group without lock is always free.
func (l *Interlock) take(m *Machine, name string) (holder string, ok bool) {
	if l == nil {
		return "", true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != nil && l.holder != m {
		return l.name, false
	}
	l.holder, l.name = m, name
	return "", true
}

// release is for when the line of m is known to be off.
func (l *Interlock) release(m *Machine) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder == m {
		l.holder = nil
	}
}
