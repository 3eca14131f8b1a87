#!/bin/sh
# Checks the packages in dist/: lintian, contents, sizes, and that a second build makes the same bytes.
set -eu
cd "$(dirname "$0")"

fail() { echo "packaging: $*" >&2; exit 1; }

dist=$(cd ../dist && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$dist" && sha256sum --quiet -c SHA256SUMS) || fail 'SHA256SUMS are not those of the packages'

# Another folder, umask, time zone and user: nothing of the builder must show.
(
	umask 077
	mkdir "$work/again"
	cd .. && git ls-files -z -co --exclude-standard | tar -c --null -T - --ignore-failed-read .git | tar -x -C "$work/again"
	TZ=Asia/Tokyo USER=somebody make -s -C "$work/again" packages >"$work/again.log" || { cat "$work/again.log" >&2; exit 1; }
)
cmp "$dist/SHA256SUMS" "$work/again/dist/SHA256SUMS" || fail 'the second build is another'

for arch in amd64 arm64 armhf; do
	deb=$(echo "$dist"/pinseal_*_"$arch".deb)
	lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$deb" || fail "lintian finds fault with $deb"
	[ "$(dpkg-deb -f "$deb" Architecture)" = "$arch" ] || fail "$deb is not for $arch"
	dpkg-deb -x "$deb" "$work/$arch"
	for file in usr/bin/pinseal usr/lib/systemd/system/pinseal.service usr/lib/sysusers.d/pinseal.conf \
		usr/lib/udev/rules.d/60-pinseal-gpio.rules usr/share/man/man1/pinseal-pub.1.gz usr/share/man/man5/pinseal.toml.5.gz \
		usr/share/bash-completion/completions/pinseal usr/share/doc/pinseal/copyright usr/share/doc/pinseal/changelog.gz; do
		[ -s "$work/$arch/$file" ] || fail "$deb lacks $file"
	done
	if dpkg-deb -c "$deb" | grep -v ' root/root '; then fail "$deb has files that are not root's"; fi
	if dpkg-deb -c "$deb" | grep '^-....w..w'; then fail "$deb has files that others can write"; fi
	grep -q '^ExecStart=/usr/bin/pinseal' "$work/$arch/usr/lib/systemd/system/pinseal.service" || fail "the unit of $deb starts another program"

	binary=$(stat -c %s "$work/$arch/usr/bin/pinseal")
	installed=$(du -s --apparent-size --block-size=1 "$work/$arch" | cut -f1)
	echo "$arch: package $(stat -c %s "$deb"), program $binary, installed $installed bytes"
done

# What runs on a Pi Zero is ARMv6 with its floating point unit.
readelf -A "$work/armhf/usr/bin/pinseal" >"$work/attributes"
! grep -q 'Tag_CPU_arch: v7' "$work/attributes" || fail 'the armhf program needs ARMv7'
go version -m "$work/armhf/usr/bin/pinseal" | grep -q 'GOARM=6' || fail 'the armhf program is not for ARMv6'

# The manual's pages have no mistakes that man would show.
for page in "$work"/amd64/usr/share/man/man?/*.gz; do
	LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l "$page" 2>&1 >/dev/null | grep . && fail "$page"
done
exit 0
