// Package deps holds the module's requirements while the packages that use them are being written.
package deps

import (
	_ "github.com/BurntSushi/toml"
	_ "github.com/alecthomas/kong"
	_ "github.com/coreos/go-systemd/v22/daemon"
	_ "github.com/coreos/go-systemd/v22/activation"
	_ "github.com/decred/dcrd/dcrec/secp256k1/v4"
	_ "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	_ "github.com/eclipse/paho.mqtt.golang"
	_ "github.com/go-json-experiment/json"
	_ "github.com/go-json-experiment/json/jsontext"
	_ "github.com/godbus/dbus/v5"
	_ "github.com/mochi-mqtt/server/v2"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "go.etcd.io/bbolt"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "golang.org/x/time/rate"
	_ "periph.io/x/conn/v3/gpio"
	_ "periph.io/x/host/v3/gpioioctl"
	_ "pgregory.net/rapid"
)
