#!/bin/sh
# Installs, uses, upgrades, removes and purges the package of dist/ in a clean Debian, made with debootstrap (root).
# The Debian is kept as a tar file, so that the second run takes seconds.
set -eu
cd "$(dirname "$0")"

suite=bookworm
arch=$(dpkg --print-architecture)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pinseal
base=$cache/$suite-$arch.tar

[ "$(id -u)" = 0 ] || exec sudo --preserve-env=XDG_CACHE_HOME,HOME "$(pwd)/$(basename "$0")"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if [ ! -e "$base" ]; then
	echo "making a Debian $suite in $base"
	mkdir -p "$cache"
	mirror=$(sed -n 's/^URIs: *\(.*[^ ]\) *$/\1/p; s/^deb  *\(\[[^]]*] *\)\{0,1\}\(http[^ ]*\).*/\2/p' \
		/etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
	debootstrap --variant=minbase --include=systemd "$suite" "$root" "${mirror:-http://deb.debian.org/debian}" >"$cache/debootstrap.log" ||
		{ tail -n 5 "$cache/debootstrap.log" >&2; exit 1; }
	rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
	tar -C "$root" --one-file-system -cf "$base.new" .
	mv "$base.new" "$base"
else
	tar -C "$root" -xf "$base"
fi
chmod 755 "$root" # mktemp's folders are private, a root is not

cp ../dist/pinseal_*_"$arch".deb "$root/pinseal.deb"
# The next version is this one with a higher number.
dpkg-deb -R "$root/pinseal.deb" "$root/next"
sed -i 's/^Version: .*/&.1/' "$root/next/DEBIAN/control"
dpkg-deb -b --root-owner-group "$root/next" "$root/next.deb" >/dev/null
rm -rf "$root/next"
cp chroot-story.sh "$root/story.sh"
# A network and a name of its own: README's ports and names must not meet this machine's.
story='ip link set lo up && hostname raspiflow && mount -t proc proc "$0/proc" && exec chroot "$0" sh /story.sh'
unshare --net --uts --mount --pid --fork --kill-child sh -c "$story" "$root"
