# What Manx is tried, tested and measured with. `make` alone lists the targets.

CARGO  ?= cargo
# The lab that `make lab` builds: its name, nodes, pods on each, and anything else that `manxctl lab up` takes.
LAB    ?= manx
NODES  ?= 3
PODS   ?= 2
UP     ?=

CTL    := target/debug/manxctl
HOST    = $(shell rustc -vV | sed -n 's/^host: //p')
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help build release deps lab lab-down test test-kube lint bench

help:
	@echo 'make lab        a cluster of $(NODES) nodes on this machine, and the proof that it works; needs root'
	@echo '                (NODES=5 PODS=1 UP="--topology tor --tor bird --dual-stack" make lab)'
	@echo 'make lab-down   take it down; nothing of it stays'
	@echo 'make test       every test, those with the real kernel and foreign routers included'
	@echo 'make test-kube  those with a real kube-apiserver alone: KUBEBUILDER_ASSETS names the folder of its programs'
	@echo 'make lint       formatting and lints'
	@echo 'make release    target/release: every program optimized, the CNI plugin small and static'
	@echo 'make bench      measurements'
	@echo 'make deps       install the Debian packages that all of this needs'

build:
	$(CARGO) build --workspace --bins

deps:
	deploy/deps.sh test

lab:
	@deploy/deps.sh lab
	@$(MAKE) --no-print-directory build
	@$(SUDO) $(CTL) --lab $(LAB) lab up --nodes $(NODES) --pods-per-node $(PODS) $(UP)
	@echo
	@$(SUDO) $(CTL) --lab $(LAB) lab verify
	@echo
	@echo 'Look around, as root: export MANX_LAB=$(LAB) PATH="$(CURDIR)/target/debug:$$PATH"'
	@echo '                      manxctl bgp peers; manxctl topology; manxctl lab exec node1 -- ip route'
	@echo 'Take it down:         make lab-down'

lab-down:
	@$(SUDO) $(CTL) --lab $(LAB) lab down

test:
	@deploy/deps.sh test
	@$(MAKE) --no-print-directory build
	deploy/as-root.sh $(CARGO) test --workspace

# Part of `make test` as well wherever the programs are.
test-kube:
	@deploy/deps.sh test
	@$(MAKE) --no-print-directory build
	deploy/as-root.sh $(CARGO) test -p manx-tests --test apiserver -- --include-ignored

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# The plugin once more, small and static: it starts once per pod operation, perhaps in a container of its own.
release:
	$(CARGO) build --release --workspace --bins
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --profile plugin -p manx-cni --target $(HOST)
	install -m 755 target/$(HOST)/plugin/manx target/release/manx

bench:
	@deploy/deps.sh test
	@$(MAKE) --no-print-directory release
	deploy/as-root.sh $(CARGO) bench --workspace --benches
