package sensor_test

import (
	"testing"

	"pinseal/agent/sensor"
)

// A command that measures something is not told the passphrase of the authority, nor what systemd tells the node.
func TestCommandsDoNotGetSecrets(t *testing.T) {
	for _, name := range []string{"PINSEAL_CA_PASSPHRASE", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "ITS_OWN"} {
		t.Setenv(name, "told")
	}
	s, err := sensor.New(sensor.Config{Kind: sensor.Exec, Command: []string{
		"sh", "-c", "echo ${PINSEAL_CA_PASSPHRASE-no} ${CREDENTIALS_DIRECTORY-no} ${NOTIFY_SOCKET-no} ${ITS_OWN-no} $PATH",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/usr/bin:/bin")
	r, err := s.Read(t.Context())
	if want := "no no no told /usr/bin:/bin"; err != nil || r.Value != want {
		t.Errorf("the command says %v, %v; want %s", r.Value, err, want)
	}
}
