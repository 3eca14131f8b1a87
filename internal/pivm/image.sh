#!/bin/bash
# image.sh FOLDER: makes the emulated Pi's kernel, initramfs and disk in FOLDER, from Debian's own packages.
# Needs root (chroot, binfmt_misc) on Debian 12, takes about two minutes. docs/emulated-pi.md says what for.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1 w=$1.making log=$1.log
guest_packages=systemd,systemd-sysv,libnss-systemd,udev,dbus,kmod,e2fsprogs,gpiod
# The drivers that the virtual hardware and the tests need, of the several thousand that there are.
drivers='fs lib crypto arch net/9p net/core net/ipv4 net/ipv6 net/802 net/llc drivers/virtio drivers/block/virtio_blk.ko
 drivers/block/loop.ko drivers/char drivers/gpio drivers/net/virtio_net.ko drivers/net/net_failover.ko drivers/watchdog'

say() { printf 'image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
again() { # COMMAND...: a mirror in the middle of a sync needs a second try
  for _ in 1 2; do "$@" >>"$log" 2>&1 && return; sleep 5; done
  "$@" >>"$log" 2>&1
}

# ---- what Debian has
# The host's own sources: where they are is the host's business.
sources() { # ARCHITECTURES
  # shellcheck disable=SC2016 # these are apt's variables
  env -u APT_CONFIG apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
    awk -v arch="$1" '$2 ~ /^bookworm(-updates|-security)?$/ && $3 == "main" && !seen[$1 $2]++ {
      printf "deb [arch=%s signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", arch, $1, $2 }'
}

# An apt of our own, which knows arm64 and leaves the host's lists alone.
private_apt() {
  local apt=$w/apt
  mkdir -p "$apt"/etc/{apt.conf.d,preferences.d} "$apt/lists/partial" "$apt/cache/archives/partial"
  : > "$apt/status"
  sources amd64,arm64 > "$apt/sources.list"
  [ -s "$apt/sources.list" ] || die "the host's apt has no Debian 12 (bookworm) source"
  cat > "$apt/apt.conf" <<E
Dir::Etc "$apt/etc"; Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "-"; Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status"; Dir::Cache "$apt/cache"; APT::Architecture "arm64"; APT::Architectures {"arm64";"amd64";};
Acquire::Languages "none"; Acquire::Retries "3"; APT::Sandbox::User "root";
E
  export APT_CONFIG=$apt/apt.conf
  again apt-get update -qq
}

unpack() { # PACKAGES FOLDER
  local deb
  mkdir -p "$2"
  for deb in "$w"/deb/$1; do dpkg-deb --fsys-tarfile "$deb" | tar -xf - -C "$2"; done
}

# ---- gpio-sim: no Debian kernel has it, nor the irq_sim that it needs
gpio_sim() {
  local m=$w/module headers=$w/headers/usr/src/linux-headers-$version
  mkdir -p "$m"
  dpkg-deb --fsys-tarfile "$w"/deb/linux-source-6.1_*.deb | tar -xOf - ./usr/src/linux-source-6.1.tar.xz |
    tar -xJf - -C "$m" --transform='s#.*/##' linux-source-6.1/drivers/gpio/{gpio-sim.c,gpiolib.h} linux-source-6.1/kernel/irq/irq_sim.c
  mv "$m/gpio-sim.c" "$m/gpio-sim-core.c"
  # irq_to_desc is not exported to modules; this is the same by what is.
  printf '%s\n' '#include <linux/irq.h>' '#include <linux/irqdesc.h>' \
    '#define irq_to_desc(n) irq_data_to_desc(irq_get_irq_data(n))' '#include "irq_sim.c"' > "$m/gpio-sim-irq.c"
  printf 'obj-m := gpio-sim.o\ngpio-sim-y := gpio-sim-core.o gpio-sim-irq.o\n' > "$m/Kbuild"
  sed -i "s#^include /usr/src/#include $w/headers/usr/src/#" "$headers/Makefile"
  make -C "$headers" M="$m" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- modules >>"$log" 2>&1
  aarch64-linux-gnu-strip --strip-debug "$m/gpio-sim.ko"
}

# ---- the root file system
# Installing for arm64 runs arm64 programs: qemu-user is registered with the kernel, and taken away again.
binfmt=/proc/sys/fs/binfmt_misc mounted='' registered=''
binfmt_on() {
  if [ ! -e $binfmt/register ]; then mount -t binfmt_misc none $binfmt; mounted=1; fi
  if [ ! -e $binfmt/qemu-aarch64 ]; then cat /usr/lib/binfmt.d/qemu-aarch64.conf > $binfmt/register; registered=1; fi
}
binfmt_off() {
  [ -z "$registered" ] || echo -1 > $binfmt/qemu-aarch64 || :
  [ -z "$mounted" ] || umount $binfmt || :
  registered='' mounted=''
}

debian() {
  sources arm64 > "$w/guest.list"
  binfmt_on
  again env -u APT_CONFIG mmdebstrap --quiet --mode=root --variant=minbase --architectures=arm64 --include=$guest_packages \
    --aptopt='Acquire::Retries "3"' --dpkgopt='path-exclude=/usr/share/{doc,man,locale,info}/*' \
    bookworm "$w/root.tar" "$w/guest.list"
  binfmt_off
  mkdir "$root"
  tar -xpf "$w/root.tar" -C "$root" --numeric-owner --xattrs --exclude='./dev/*'
}

modules() {
  local from=$w/kernel/lib/modules/$version to=$root/lib/modules/$version d
  for d in $drivers; do
    [ -e "$from/kernel/$d" ] || continue
    mkdir -p "$to/kernel/$(dirname "$d")"
    cp -a "$from/kernel/$d" "$to/kernel/$(dirname "$d")/"
  done
  rm -r "$to"/kernel/net/ipv[46]/netfilter
  cp "$from"/modules.{builtin,builtin.modinfo,order} "$to/"
  install -Dm644 "$w/module/gpio-sim.ko" "$to/extra/gpio-sim.ko"
  depmod -b "$root" "$version"
}

settings() {
  local units=$root/etc/systemd/system unit
  install -m755 "$here"/guest/pivm-{gpio,agent} "$root/usr/local/sbin/"
  install -m644 "$here"/guest/*.service "$units/"
  install -m644 "$here/guest/10-eth.network" "$root/etc/systemd/network/"
  mkdir -p "$units"/{multi-user,sysinit}.target.wants
  ln -s ../pivm-agent.service /lib/systemd/system/systemd-networkd.service "$units/multi-user.target.wants/"
  ln -s ../pivm-gpio.service "$units/sysinit.target.wants/"
  ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
  # What no test looks at only makes twenty boots longer.
  for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
      getty@tty1.service serial-getty@ttyAMA0.service systemd-{binfmt,networkd-wait-online,pstore,logind,user-sessions}.service \
      systemd-{random-seed,update-utmp,update-utmp-runlevel}.service kmod-static-nodes.service modprobe@{drm,efi_pstore,fuse,dm_mod,loop}.service \
      dev-{hugepages,mqueue}.mount sys-fs-fuse-connections.mount sys-kernel-{debug,tracing}.mount; do
    ln -sf /dev/null "$units/$unit"
  done
  install -Dm644 "$here/guest/trigger.conf" "$units/systemd-udev-trigger.service.d/trigger.conf"
  # As Raspberry Pi OS has it.
  install -m644 "$here/guest/99-gpio.rules" "$root/etc/udev/rules.d/"
  echo 'gpio:x:986:' >> "$root/etc/group"
  echo 'gpio:!::' >> "$root/etc/gshadow"
  echo raspberrypi > "$root/etc/hostname"
  echo '127.0.0.1 localhost raspberrypi' > "$root/etc/hosts"
  echo 'nameserver 10.0.2.3' > "$root/etc/resolv.conf" # where nobody answers: names must not be needed
  echo '/dev/vda / ext4 defaults,noatime 0 1' > "$root/etc/fstab"
  echo 0123456789abcdef0123456789abcdef > "$root/etc/machine-id"
  mkdir -p "$root/var/log/journal"
  rm -rf "$root/var/lib/apt/lists"/* "$root/var/cache/apt"/*.bin
}

# ---- the initramfs: just enough to find the disk
initramfs() {
  local i=$w/initramfs module
  mkdir -p "$i"/{bin,modules,root,proc,sys,dev}
  cp "$w/busybox/bin/busybox" "$i/bin/"
  install -m755 "$here/guest/init" "$i/init"
  depmod -b "$w/kernel" "$version" 2>>"$log"
  for module in virtio_pci virtio_blk crc32c_generic ext4; do
    modprobe -d "$w/kernel" -S "$version" --show-depends "$module"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' > "$w/needed"
  while read -r module; do cp "$module" "$i/modules/"; basename "$module"; done < "$w/needed" > "$w/order"
  mv "$w/order" "$i/modules/order"
  (cd "$i" && find . | busybox cpio -o -H newc 2>>"$log" | gzip -1) > "$w/initrd.gz"
}

[ "$(id -u)" = 0 ] || die "making the image needs root: run make test-pi as root once"
mkdir -p "$(dirname "$out")"
rm -rf "$out" "$out.new" "$w"
mkdir -p "$w/deb"
: > "$log"
trap 'status=$?; binfmt_off; [ $status = 0 ] || { say "failed; the end of $log:"; tail -15 "$log" >&2; }; rm -rf "$w"' EXIT

private_apt
package=$(apt-cache depends --no-recommends --no-suggests linux-image-arm64 | sed -n 's/.*Depends: \(linux-image-[0-9][^ :]*\).*/\1/p')
[ -n "$package" ] || die "Debian has no linux-image-arm64"
version=${package#linux-image-} root=$w/root
say "Linux $version: downloading"
cd "$w/deb"
again apt-get download -qq "$package:arm64" "linux-headers-$version:arm64" "linux-headers-${version%-arm64}-common" \
  linux-kbuild-6.1:amd64 linux-source-6.1 busybox-static:arm64
cd /
unpack 'linux-image-*' "$w/kernel"
unpack 'linux-[hk]*' "$w/headers"
unpack 'busybox-static_*' "$w/busybox"
say 'compiling gpio-sim'
gpio_sim
say 'installing Debian'
debian
modules
settings
say 'writing kernel, initramfs and disk'
initramfs
mkdir "$out.new"
mke2fs -q -t ext4 -L pi -d "$root" -E lazy_itable_init=1 "$out.new/root.img" 2G >>"$log" 2>&1
mv "$w/kernel/boot/vmlinuz-$version" "$out.new/vmlinuz"
mv "$w/initrd.gz" "$out.new/"
mv "$out.new" "$out"
say "done in $SECONDS s"
