#!/bin/sh
# Writes the Debian packages and their SHA256SUMS into dist/. `make packages` calls it when the
# binaries are built: bin/pinseal for this machine, bin/linux-ARCH/pinseal for the packages.
set -eu
cd "$(dirname "$0")"

# A release is named by its tag; between releases the number of commits or, before the first, their
# date, lets a later version sort after an earlier one.
version_of_commit() {
	described=$(git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-\([0-9]*\)-g/+\1.g/') || true
	[ -n "$described" ] || described="0~git$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y%m%d.%H%M%S)"
	git diff --quiet HEAD || described="$described+changed"
	echo "$described"
}

: "${VERSION:=$(version_of_commit)}"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export VERSION SOURCE_DATE_EPOCH

out=${1:-../dist}
mkdir -p "$out"
rm -f "$out"/pinseal_*.deb "$out"/SHA256SUMS
out=$(cd "$out" && pwd)
STAGE=$(mktemp -d)
export STAGE
trap 'rm -rf "$STAGE"' EXIT

# The pages and the completions are the command line's own definitions, so they are the same everywhere.
mkdir "$STAGE/man" "$STAGE/completion"
../bin/pinseal man "$STAGE/man"
awk -f configuration.awk -v date="$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)" ../docs/configuration.md >"$STAGE/man/pinseal.toml.5"
gzip -9n "$STAGE"/man/*
for shell in bash zsh fish; do
	../bin/pinseal completion "$shell" >"$STAGE/completion/$shell"
done
awk -f changelog.awk -v version="$VERSION" \
	-v maintainer="$(sed -n 's/^maintainer: //p' nfpm.yaml)" \
	-v date="$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")" ../CHANGELOG.md | gzip -9n >"$STAGE/changelog.gz"

go build -o "$STAGE/deb" ./cmd/deb
build() {
	../bin/pinseal install --root "$STAGE/$1" --prefix /usr --binary "../bin/$2/pinseal" >/dev/null
	ARCH=$1 "$STAGE/deb" -out "$out"
}
build armhf linux-arm-6 & armhf=$! # ARMv6, so that it runs on a Pi Zero
build arm64 linux-arm64 & arm64=$!
build amd64 linux-amd64
wait $armhf
wait $arm64
cd "$out"
sha256sum pinseal_*.deb >SHA256SUMS
