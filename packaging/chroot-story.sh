#!/bin/sh
# What a person does with the package, inside a clean Debian without systemd running. test-chroot.sh starts it.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

fail() { echo "failed: $*" >&2; exit 1; }
step() { echo "- $*"; }
has() { grep -q -e "$2" "$1" || { cat "$1" >&2; fail "no '$2' above"; }; }
absent() { for path; do [ ! -e "$path" ] && [ ! -L "$path" ] || fail "$path is still there"; done; }
present() { for path; do [ -e "$path" ] || fail "$path is not there"; done; }

[ -e /dev/null ] || mknod -m 666 /dev/null c 1 3
[ -e /dev/urandom ] || mknod -m 666 /dev/urandom c 1 9
printf '127.0.0.1 localhost raspiflow raspiflow.local\n' >/etc/hosts
# Nothing may be started here.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

step 'a first installation makes the user and starts nothing'
dpkg -i /pinseal.deb >/out 2>&1 || { cat /out; fail 'dpkg -i'; }
has /out '^next: sudo pinseal init && sudo systemctl enable --now pinseal$'
getent passwd pinseal >/dev/null || fail 'no user pinseal'
id -Gn pinseal | grep -qw gpio || fail 'pinseal is not in the group gpio'
absent /etc/pinseal/pinseal.toml /var/lib/pinseal /etc/systemd/system/multi-user.target.wants/pinseal.service
pinseal version

step "README's five minutes, as its commands stand"
pinseal init --chip sim >/out
has /out '^node raspiflow is ready to run$'
start_node() {
	pinseal run 2>/log &
	node=$!
	waited=0
	until grep -q '^ready: mqtts://' /log; do
		kill -0 $node 2>/dev/null && [ $waited -lt 100 ] || { cat /log >&2; fail 'the node did not start'; }
		sleep 0.1
		waited=$((waited + 1))
	done
}
stop_node() {
	kill $node
	wait $node || { cat /log >&2; fail 'the node did not stop cleanly'; }
}
start_node
[ "$(stat -c %U:%G /proc/$node)" = pinseal:gpio ] || fail 'sudo pinseal run stays root'
resident=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$node/status)
echo "  resident memory after start: $resident KiB ($(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$node/status) of it its own, the rest the program's file)"
[ "$resident" -lt 25600 ] || fail 'more than 25 MiB of memory'
pinseal pub ledStatus 1 >/out
has /out '^applied: ON'
[ "$(cat /run/pinseal/lines/GPIO17)" = 1 ] || fail 'the line is not high'
pinseal pub -t ledStatus -m toggle >/out
has /out '^applied: OFF'
[ "$(cat /run/pinseal/lines/GPIO17)" = 0 ] || fail 'the line is not low'
pinseal device add sensor-1 --out /root/sensor-1 >/out
printf '21.5\n' | pinseal pub --bundle /root/sensor-1 -l -t telemetry/sensor-1/load
pinseal device add sensor-2 >/line
(cd /root && pinseal device join "$(head -n 1 /line)") >/out || { cat /out; fail 'joining, without a change of the configuration'; }
has /out ': applied$'
pinseal sub -C 1 -W 10 -v 'pinseal/raspiflow/availability' >/out
has /out online

step 'what root renews with no more than its unit may do is in force, and the service can read it'
# shellcheck disable=SC2016 # for the inner shell
unshare --mount --propagation unchanged sh -c 'mount --bind /etc /etc && mount -o remount,bind,ro /etc && exec "$@"' sh \
	setpriv --bounding-set=-all,+chown,+dac_override,+fowner pinseal ca renew >/out 2>&1 || { cat /out; fail 'ca renew'; }
has /out "^the broker's certificate is good until"
has /out '^the running node knows$'
[ "$(stat -c %U:%G:%a /var/lib/pinseal/keys/broker.key)" = pinseal:gpio:600 ] || fail 'the key is not the service'"'"'s'
pinseal ca renew --due >/out 2>&1
[ ! -s /out ] || { cat /out; fail 'it talks although nothing is due'; }
pinseal pub ledStatus 0 >/out
has /out '^applied: OFF'

step 'an upgrade under the running node leaves it running, and keeps everything'
sha256sum /etc/pinseal/pinseal.toml /var/lib/pinseal/pki/*.key /var/lib/pinseal/pki/*.crt /var/lib/pinseal/keys/sign.key >/sums
dpkg -i /next.deb >/out 2>&1 || { cat /out; fail 'the upgrade'; }
kill -0 $node || fail 'the upgrade stopped the node'
pinseal pub ledStatus 1 >/out
has /out '^applied: ON'
sha256sum --quiet -c /sums
stop_node
start_node
pinseal pub ledStatus 0 >/out
has /out '^applied: OFF'
stop_node

step 'what systemd would be told: nothing at first, try-restart by an upgrade, stop by a removal'
printf '#!/bin/sh\necho "$*" >>/systemctl.log\ncase "$*" in *is-active*) exit 3;; esac\n' >/usr/local/bin/systemctl
chmod 755 /usr/local/bin/systemctl
rm /usr/sbin/policy-rc.d
mkdir -p /run/systemd/system
dpkg -i /next.deb >/out 2>&1
has /systemctl.log '^--system daemon-reload$'
has /systemctl.log '^try-restart pinseal.service'
! grep -q -w -e start -e enable -e stop /systemctl.log || fail 'an upgrade does more than that'
: >/systemctl.log
dpkg -r pinseal >/out 2>&1 || { cat /out; fail 'dpkg -r'; }
has /systemctl.log '^stop pinseal.socket pinseal.service'

step 'remove keeps keys and configuration'
absent /usr/bin/pinseal /usr/lib/systemd/system/pinseal.service /usr/lib/systemd/system/pinseal-renew.timer
present /etc/pinseal/pinseal.toml /var/lib/pinseal/keys/sign.key /var/lib/pinseal/pki/ca.key /var/lib/pinseal/state.db
sha256sum --quiet -c /sums

step 'what was removed comes back as it was'
: >/systemctl.log
dpkg -i /next.deb >/out 2>&1
has /out '^next: sudo systemctl enable --now pinseal$'
! grep -q -w -e start -e enable /systemctl.log || fail 'it was started'
start_node
pinseal pub ledStatus 1 >/out
has /out '^applied: ON'
stop_node

step 'purge leaves nothing'
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -s /usr/lib/systemd/system/pinseal.service /etc/systemd/system/multi-user.target.wants/pinseal.service
dpkg -P pinseal >/out 2>&1 || { cat /out; fail 'dpkg -P'; }
absent /etc/pinseal /var/lib/pinseal /run/pinseal /usr/bin/pinseal /usr/share/doc/pinseal \
	/etc/systemd/system/multi-user.target.wants/pinseal.service
! getent passwd pinseal >/dev/null || fail 'the user is still there'
[ -z "$(find / -xdev -name '*pinseal*' ! -path '/proc/*' ! -name 'pinseal.deb' -print)" ] || {
	find / -xdev -name '*pinseal*' ! -path '/proc/*' ! -name 'pinseal.deb' -print >&2
	fail 'purge left these'
}
echo 'packaging: the package installs, works, upgrades, removes and purges'
