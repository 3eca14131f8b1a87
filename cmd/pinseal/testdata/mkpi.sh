#!/bin/sh
# mkpi.sh DIR: the root file system of a Pi as far as the first boot's scripts need it: busybox for a shell, and a systemctl
# that only keeps account. `unshare --map-root-user --root=DIR PROGRAM` runs something in it.
set -e
pi=$1
mkdir -p "$pi/bin" "$pi/etc" "$pi/usr/bin" "$pi/usr/local/bin" "$pi/var/lib" "$pi/boot/firmware" "$pi/tmp" "$pi/dev"
cp "$(command -v busybox)" "$pi/bin/busybox"
for applet in sh tar gzip gunzip zcat sed rm dd sync cat grep sha256sum tee wc dirname mkdir printf; do
	ln -sf busybox "$pi/bin/$applet"
done
: >"$pi/dev/null"
truncate -s 64M "$pi/dev/zero" # only root may make devices
printf '#!/bin/sh\necho "$*" >>/systemctl.log\n' >"$pi/bin/systemctl"
chmod 755 "$pi/bin/systemctl"
echo raspberrypi >"$pi/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n' >"$pi/etc/hosts"
echo 'Raspberry Pi reference 2025-10-01' >"$pi/etc/rpi-issue"
