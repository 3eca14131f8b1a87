package gpio_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pinseal/gpio"
)

// What can be told without a chip; kernel_test.go has the rest.
func TestOpenChipThatIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gpiochip0")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, which, want string }{
		{"no such path", "/dev/gpiochip987", "there is no /dev/gpiochip987"},
		{"not a device", file, "is something else"},
		{"another device", "/dev/null", "is something else"},
		{"a folder", "/dev", "/dev"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := gpio.OpenChip(c.which)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if c.which != "/dev" && !errors.Is(err, gpio.ErrNoChip) {
				t.Errorf("%v is not ErrNoChip", err)
			}
		})
	}
}

func TestOpenChipByUnknownLabel(t *testing.T) {
	_, err := gpio.OpenChip("no-such-label")
	// Without the right to open the chips there are, whether one has the label cannot be told.
	if !errors.Is(err, gpio.ErrNoChip) && !errors.Is(err, gpio.ErrPermission) {
		t.Errorf("got %v", err)
	}
}
