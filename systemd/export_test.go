package systemd

// ClockSynchronizedBy is ClockSynchronized with another file of timesyncd's.
func ClockSynchronizedBy(file string) bool { return clockSynchronized(file) }
