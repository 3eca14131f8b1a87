package flash_test

import (
	"strings"
	"testing"

	"pinseal/internal/flash"
)

func TestUserDataKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	const item = "- [ sh, /boot/firmware/pinseal-setup.sh, start ] # pinseal flash\n"
	tests := []struct{ name, before, after string }{
		{"comments only", "#cloud-config\n# runcmd:\n# - [ ls ]\n", "#cloud-config\n# runcmd:\n# - [ ls ]\nhostname: pi\nruncmd:\n" + item},
		{"nothing but its first line, unfinished", "#cloud-config", "#cloud-config\nhostname: pi\nruncmd:\n" + item},
		{"a host name", "#cloud-config\nhostname: \"porch\" # mine\n", "#cloud-config\nhostname: \"porch\" # mine\nruncmd:\n" + item},
		{"commands", "#cloud-config\nruncmd:\n- ls\nhostname: pi\n", "#cloud-config\nruncmd:\n" + item + "- ls\nhostname: pi\n"},
		{"indented commands", "#cloud-config\nruncmd: # mine\n\n  # first\n  - ls\nhostname: pi\n", "#cloud-config\nruncmd: # mine\n  " + item + "\n  # first\n  - ls\nhostname: pi\n"},
		{"somebody else's key of that name", "#cloud-config\nx:\n  runcmd: [ls]\n  hostname: no\n", "#cloud-config\nx:\n  runcmd: [ls]\n  hostname: no\nhostname: pi\nruncmd:\n" + item},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := flash.UserDataWith([]byte(tt.before), "pi")
			if err != nil || string(got) != tt.after {
				t.Errorf("got %v\n%s\nwant\n%s", err, got, tt.after)
			}
		})
	}
	refused := []struct{ name, text string }{
		{"a script", "#!/bin/sh\n"},
		{"several parts", "Content-Type: multipart/mixed\n"},
		{"empty", ""},
		{"commands on one line", "#cloud-config\nruncmd: [ ls ]\n"},
		{"no commands", "#cloud-config\nruncmd:\nhostname: pi\n"},
		{"commands that are a text", "#cloud-config\nruncmd: |\n  ls\n"},
	}
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, err := flash.UserDataWith([]byte(tt.text), "pi"); err == nil {
				t.Errorf("became\n%s", got)
			}
		})
	}
}

func FuzzUserData(f *testing.F) {
	f.Add("#cloud-config\nruncmd:\n  - ls\nhostname: pi\n")
	f.Add("#cloud-config\r\n# nothing\r\n")
	f.Add("#cloud-config\nruncmd:\n\n#x\n- ls")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := flash.UserDataWith([]byte(text), "pi")
		if err != nil {
			return
		}
		if strings.Count(string(got), "pinseal-setup.sh") != strings.Count(text, "pinseal-setup.sh")+1 {
			t.Errorf("the command is not there once:\n%s", got)
		}
		for line := range strings.Lines(text) {
			if !strings.Contains(string(got), strings.TrimRight(line, "\r\n")) {
				t.Errorf("lost %q", line)
			}
		}
	})
}

func TestDisksInUse(t *testing.T) {
	t.Parallel()
	disks, err := flash.ParseDisks([]byte(`{"blockdevices": [
		{"path": "/dev/sda", "type": "disk", "rm": true, "hotplug": true, "mountpoints": [null], "children": [
			{"path": "/dev/sda1", "fstype": "vfat", "label": "bootfs", "mountpoints": ["/media/me/bootfs", "/srv"]},
			{"path": "/dev/sda2", "fstype": "ext4", "label": "rootfs", "mountpoints": ["/run/media/me/rootfs"]},
			{"path": "/dev/sda3", "fstype": "ext4", "label": "data", "mountpoints": ["/media/me/data"]}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if used := strings.Join(disks[0].InUse(), " "); used != "/srv /media/me/data" {
		t.Errorf("in use at %q", used)
	}
	if _, err := flash.ParseDisks([]byte("lsblk: not found")); err == nil {
		t.Error("what is no answer was taken for one")
	}
}
