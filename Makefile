# `make` lists the targets. `make test` and `make test-pi` are what continuous integration runs.
.DEFAULT_GOAL := help
SHELL := /bin/sh

GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION := v1.9.0
FUZZTIME ?= 10s

TOOLS := $(CURDIR)/bin/tools
GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)
# HTTP/2 comes with the websockets of the MQTT libraries, which are not used.
# Every call that is inlined costs room in the program's tables. Inlining only where messages pass saves a megabyte.
INLINED := runtime/... internal/... sync/... crypto/... bytes bufio pinseal/signing/... pinseal/agent/... pinseal/broker/... \
	github.com/mochi-mqtt/... github.com/eclipse/...
BUILD := CGO_ENABLED=0 go build -buildvcs=auto -tags nethttpomithttp2 -trimpath -ldflags '-s -w -buildid=' \
	-gcflags=all=-l $(INLINED:%=-gcflags=%=)

# What the tests run besides Go: other implementations to agree with, and the
# C compiler that the race detector needs. The last line looks at the packages.
DEBIAN_PACKAGES := mosquitto mosquitto-clients python3-paho-mqtt python3-ecdsa python3-jwt python3-prometheus-client \
	python3-yaml dosfstools mtools e2fsprogs busybox-static \
	python3-cryptography jose openssl curl stunnel4 systemd gcc libc6-dev fish zsh \
	lintian man-db binutils nodejs $(shell command -v npm >/dev/null || echo npm)
# nodejs from elsewhere than Debian brings npm along.

# mqtt.js, which npm writes down there when it is done.
MQTTJS_DIR := cmd/pinseal/testdata/mqttjs
MQTTJS := $(MQTTJS_DIR)/node_modules/.package-lock.json

CROSS := cross-linux-amd64 cross-linux-arm64 cross-linux-arm-7 cross-linux-arm-6

.PHONY: help build test lint cross packages test-packages test-chroot test-arm test-pi fuzz bench proof vulncheck tools debian-packages

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the static binary into bin/
	@$(BUILD) -o bin/ ./cmd/pinseal

# The tests come last, so that the last line is their result. -count=1, because
# Go's cache does not see other programs change. Wycheproof's vectors are a
# module apart: they are 109 MB, and no dependency of ours.
test: tools lint test-packages ## install what is missing, lint, build for every platform, test with the race detector
	@go -C internal/wycheproof test -count=1 ./...
	@CGO_ENABLED=1 go test -race -count=1 -timeout 10m ./...

lint: $(GOLANGCI_LINT) ## run the linters, go vet among them
	@$(GOLANGCI_LINT) run --allow-parallel-runners ./...
	@cd internal/wycheproof && $(GOLANGCI_LINT) run --allow-parallel-runners ./...
	@cd packaging && $(GOLANGCI_LINT) run --allow-parallel-runners ./...

cross: $(CROSS) ## build statically for every platform, into bin/PLATFORM/

.PHONY: $(CROSS)
$(CROSS): cross-%:
	@echo 'building $*'
	@GOOS=$(word 1,$(subst -, ,$*)) GOARCH=$(word 2,$(subst -, ,$*)) GOARM=$(word 3,$(subst -, ,$*)) \
		$(BUILD) -o bin/$*/ ./cmd/pinseal

packages: build cross ## build the Debian packages into dist/
	@packaging/build.sh

test-packages: debian-packages packages ## check the packages: lintian, contents, sizes, the same bytes a second time
	@packaging/test.sh

test-chroot: DEBIAN_PACKAGES := debootstrap iproute2
test-chroot: debian-packages packages ## install, use, upgrade and purge the package in a clean Debian (root)
	@packaging/test-chroot.sh

# What has to do with bits, bytes and the kernel. A Pi Zero's processor is the ARM1176. Left out are the tests
# that start themselves again: the kernel would have to be told about the other processor.
ARM_TESTS := ./signing/... ./gpio/... ./pki/... ./broker/internal/frame/... ./internal/atomicfile/... ./internal/clock/...
ARM_SKIP := ^(TestKilledAtRandomMoments|TestConcurrentProcesses|TestKilledProcess|TestJournalOnAFullDisk|TestJournalIsShared)$$

test-arm: DEBIAN_PACKAGES := qemu-user
test-arm: debian-packages cross ## run what depends on the processor under emulation, for arm64 and ARMv6
	@qemu-arm -cpu arm1176 bin/linux-arm-6/pinseal version
	@qemu-aarch64 bin/linux-arm64/pinseal version
	@CGO_ENABLED=0 GOARCH=arm64 go test -count=1 -skip '$(ARM_SKIP)' -exec qemu-aarch64 $(ARM_TESTS)
	@CGO_ENABLED=0 GOARCH=arm GOARM=6 go test -count=1 -skip '$(ARM_SKIP)' -exec 'qemu-arm -cpu arm1176' $(ARM_TESTS)

# Whatever it takes to make a Pi: its kernel's module is compiled, its packages are arm64's.
test-pi: DEBIAN_PACKAGES := qemu-utils qemu-system-arm qemu-user-static arch-test ipxe-qemu mmdebstrap busybox-static \
	gcc-12 gcc-12-aarch64-linux-gnu binutils-aarch64-linux-gnu make bc libelf1 xz-utils kmod e2fsprogs mosquitto-clients
test-pi: debian-packages packages ## install the package on an emulated Pi: kills, power cuts, full disks, wrong clocks (6 min)
	@PINSEAL_PACKAGES='$(CURDIR)/dist' go test -v -tags pivm -count=1 -timeout 30m ./internal/pivm

fuzz: ## run each fuzz target for FUZZTIME (10s)
	@targets=$$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ { name[n++] = $$1 } $$1 == "ok" { while (n) print $$2, name[--n] }') && \
	echo "$$targets" | while read -r package target; do \
		echo "$$package $$target"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; \
	done

bench: debian-packages ## measure beside the stack that is replaced (6 minutes; docs/performance.md)
	@go run ./internal/bench

proof: ## try what must never happen, and count (20 minutes)
	@go run ./internal/proof
	@go run ./internal/powercut
	@PINSEAL_BROKER_KILLS=50 go test -count=1 -v -run TestKilledUnderAStream ./broker
	@PINSEAL_OUTBOX_KILLS=200 go test -count=1 -run '^TestKilled$$' -v ./agent/outbox
	@PINSEAL_ABUSE=full go test -count=1 -run Abuse ./broker
	@go -C internal/wycheproof run .
	@PINSEAL_SEQUENCES=1000000 go test -count=1 -timeout 30m -v -run '^TestNoRuleIsBroken$$' ./agent/actuator

vulncheck: ## look for known vulnerabilities (needs the network)
	@go run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./...

tools: debian-packages $(GOLANGCI_LINT) $(MQTTJS) ## install what the tests and the linters need

# The name carries the version, so another version is another file.
$(GOLANGCI_LINT):
	@echo 'building golangci-lint $(GOLANGCI_LINT_VERSION)'
	@GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv $(TOOLS)/golangci-lint $@

# The lock file has the digest of every file, and no host: npm's own setting says where from. No script of a package runs.
$(MQTTJS): $(MQTTJS_DIR)/package-lock.json | debian-packages
	@npm ci --prefix $(MQTTJS_DIR) --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

# The tests start the programs they need themselves: the broker that Debian
# starts on installation is stopped again, unless it was there before.
debian-packages:
	@missing=''; \
	for package in $(DEBIAN_PACKAGES); do \
		dpkg-query -W -f '$${Status}' "$$package" 2>/dev/null | grep -q ' installed$$' || missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "installing$$missing"; \
	sudo=''; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update -qq && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null || exit 1; \
	case "$$missing " in *' mosquitto '*) \
		if [ -d /run/systemd/system ]; then $$sudo systemctl disable --now -q mosquitto; \
		elif [ -x /etc/init.d/mosquitto ]; then $$sudo /etc/init.d/mosquitto stop >/dev/null; fi || true;; \
	esac
