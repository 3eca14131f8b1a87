#!/bin/sh
# mkcard.sh IMAGE BOOT ROOT: an image of a card with the files of the folder BOOT on its FAT partition and those of ROOT
# on its ext4 partition, as Raspberry Pi OS has them, made without root.
set -e
image=$1 boot=$2 root=$3
PATH=$PATH:/usr/sbin:/sbin
truncate -s 64M "$image"
# Sectors: boot from 8192 (40 MiB, type FAT32), root from 90112 (20 MiB, Linux).
printf '\0\0\0\0\014\0\0\0\0\040\0\0\0\100\001\0\0\0\0\0\203\0\0\0\0\140\001\0\0\240\0\0' |
	dd of="$image" bs=1 seek=446 conv=notrunc status=none
printf '\125\252' | dd of="$image" bs=1 seek=510 conv=notrunc status=none
mkfs.vfat -F 32 -s 1 -n BOOTFS --offset 8192 "$image" 40960 >/dev/null 2>&1
MTOOLS_SKIP_CHECK=1 mcopy -i "$image@@4194304" "$boot"/* ::
mke2fs -q -F -t ext4 -L rootfs -d "$root" -E offset=46137344 "$image" 20m
