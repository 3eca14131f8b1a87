// Package sensor reads what a Raspberry Pi and what is wired to it can measure: files of the kernel's /proc and /sys,
// and what a command or another file says.
//
// What goes in is a [Config], what comes out is a [Reading] with a unit of SenML (RFC 8428). [Sensor.Run] reads at an
// interval and passes on what has changed enough; [Pack] makes one message of many readings.
//
// Every path is below Config.Root, so that a test can read a tree of its own. Of every file and every command no more
// than [MaxText] bytes are taken. A command has a time limit; when that is over, it and all that it started are killed.
//
// Not this package's: signing, topics, devices on buses that the kernel has no driver for. A BME280 or BMP280 is read
// through the kernel's IIO driver of that name.
package sensor
