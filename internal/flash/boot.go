package flash

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// firmware is where the boot partition is mounted on the Pi since Bookworm.
const firmware = "/boot/firmware"

const (
	runParameter     = "systemd.run="
	firstRunCommands = " systemd.run=" + firmware + "/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target"
)

// firstRunScript runs the setup once and takes itself out of the kernel's command line: by name and not
// from a copy, because the first boot has changed the line meanwhile (PARTUUID, init=). It never
// fails, since systemd.run_failure_action would then switch the Pi off.
const firstRunScript = `#!/bin/sh
# Written by pinseal flash.
sh ` + firmware + `/` + setupScript + `
rm -f ` + firmware + `/firstrun.sh
sed -i 's| systemd\.run=[^ ]*||; s| systemd\.run_success_action=[^ ]*||; s| systemd\.unit=kernel-command-line\.target||' ` + firmware + `/cmdline.txt
exit 0
`

// runSetup is one line for a firstrun.sh that is somebody else's. Raspberry Pi OS itself edits the one
// of Raspberry Pi Imager on first boot, cutting it at the line that removes it.
const runSetup = `for b in ` + firmware + ` /boot; do if [ -f $b/` + setupScript + ` ]; then sh $b/` + setupScript + `; break; fi; done # pinseal flash`

// removesItself is that line.
func removesItself() *regexp.Regexp { return regexp.MustCompile(`(?m)^.*rm.*firstrun\.sh$`) }

// firstRunWith puts the setup into the firstrun.sh that is on the card.
func firstRunWith(script []byte) ([]byte, error) {
	at := removesItself().FindIndex(script)
	if at == nil || !bytes.HasPrefix(script, []byte("#!")) {
		return nil, errors.New("firstrun.sh is on the card already and is not Raspberry Pi Imager's")
	}
	return slices.Concat(script[:at[0]], []byte(runSetup+"\n"), script[at[0]:]), nil
}

// cmdlineWith makes the kernel's command line run firstrun.sh. It is one line.
func cmdlineWith(line []byte) []byte {
	return append(bytes.TrimRight(line, " \t\r\n"), firstRunCommands+"\n"...)
}

// runsFirst is what the kernel's command line runs on first boot, or nothing.
func runsFirst(line []byte) string {
	for word := range strings.FieldsSeq(string(line)) {
		if program, ok := strings.CutPrefix(word, runParameter); ok {
			return program
		}
	}
	return ""
}

// userDataItem is an entry of runcmd, which runs once, at the end of the first boot.
const userDataItem = "- [ sh, " + firmware + "/" + setupScript + ", start ] # pinseal flash\n"

// userDataWith adds the host name and the setup to a cloud-config that may have more in it. It edits
// text, so that comments, order and whatever it does not know stay as they are.
func userDataWith(userData []byte, host string) ([]byte, error) {
	first, _, _ := bytes.Cut(userData, []byte("\n"))
	if strings.TrimSpace(string(first)) != "#cloud-config" {
		return nil, errors.New("user-data does not begin with #cloud-config")
	}
	text := string(bytes.TrimRight(userData, "\r\n")) + "\n"
	if cloudHost(userData) == "" {
		text += "hostname: " + host + "\n"
	}
	key := regexp.MustCompile(`(?m)^["']?runcmd["']?[ \t]*:(.*)\n`).FindStringSubmatchIndex(text)
	if key == nil {
		return []byte(text + "runcmd:\n" + userDataItem), nil
	}
	if rest := strings.TrimSpace(text[key[2]:key[3]]); rest != "" && !strings.HasPrefix(rest, "#") {
		return nil, errors.New("runcmd in user-data is not a list with one entry a line")
	}
	indent := regexp.MustCompile(`^(?:[ \t]*(?:#.*)?\n)*( *)- `).FindStringSubmatch(text[key[1]:])
	if indent == nil {
		return nil, errors.New("runcmd in user-data is not a list with one entry a line")
	}
	return []byte(text[:key[1]] + indent[1] + userDataItem + text[key[1]:]), nil
}

// cloudHost is the host name that user-data gives, or nothing.
func cloudHost(userData []byte) string {
	return firstGroup(userData, `(?m)^hostname[ \t]*:[ \t]*["']?([A-Za-z0-9-]+)["']?[ \t]*(?:#.*)?\r?$`)
}

// imagerHost is the host name that Raspberry Pi Imager's firstrun.sh gives, or nothing.
func imagerHost(script []byte) string {
	return firstGroup(script, `(?m)imager_custom set_hostname ["']?([A-Za-z0-9-]+)["']?[ \t]*$`)
}

func firstGroup(text []byte, pattern string) string {
	found := regexp.MustCompile(pattern).FindSubmatch(text)
	if found == nil {
		return ""
	}
	return string(found[1])
}

// hostsWith gives the host a new name in /etc/hosts.
func hostsWith(hosts []byte, host string) []byte {
	var kept strings.Builder
	for line := range strings.Lines(string(hosts)) {
		if fields := strings.Fields(line); len(fields) == 0 || fields[0] != "127.0.1.1" {
			kept.WriteString(line)
		}
	}
	return fmt.Appendf(nil, "%s\n127.0.1.1\t%s\n", strings.TrimRight(kept.String(), "\n"), host)
}
