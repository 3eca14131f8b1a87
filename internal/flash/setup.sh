#!/bin/sh
# Written by pinseal flash: installs pinseal-setup.tgz and takes it off the boot partition, which everybody can read.
#   start    also start the service now: there is no restart to come
set -u
umask 022
host=@HOST@
sum=@SUM@
boot=$(cd "$(dirname "$0")" && pwd)
archive=$boot/pinseal-setup.tgz

[ -f "$archive" ] || exit 0

fail() {
	echo "pinseal was not set up: $1" | tee -a "$boot/pinseal-setup.log" >&2
	exit 1
}

echo "$sum  $archive" | sha256sum -c - >/dev/null 2>&1 || fail "$archive is damaged; write the card again"
tar -xpzf "$archive" -C / -o || fail "unpacking $archive"

if [ "$(cat /etc/hostname)" != "$host" ]; then
	echo "$host" >/etc/hostname
fi
if ! grep -q "^127\.0\.1\.1[[:space:]]*$host\$" /etc/hosts; then
	sed -i '/^127\.0\.1\.1[[:space:]]/d' /etc/hosts
	printf '127.0.1.1\t%s\n' "$host" >>/etc/hosts
fi

# What is installed must be on the card before what it was installed from goes.
sync
size=$(wc -c <"$archive")
dd if=/dev/zero of="$archive" bs="$size" count=1 conv=notrunc,fsync 2>/dev/null || fail "overwriting $archive"
rm -f "$archive" "$0"
sync

if [ "${1-}" = start ]; then
	systemctl daemon-reload
	systemctl start --no-block pinseal.service
fi
exit 0
