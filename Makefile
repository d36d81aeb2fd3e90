# flatnet's commands. `make demo` shows it at work, `make test` proves it.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
BINARIES = flatnet flatnet-ipam flatnetd flatnet-bgp kubectl-flatnet

.PHONY: all build test race chart bgp page generate lint bench demo demo-bgp fuzz clean kernels managers s390x arm64 cluster cluster-down e2e e2e-full bench-cluster release

all: build

# Static, stripped binaries in bin/.
build:
	@mkdir -p bin
	@test -x bin/flatnetd || echo "building bin/: takes a minute where nothing is cached, because of the Kubernetes client"
	@for b in $(BINARIES); do \
		CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/$$b ./cmd/$$b || exit 1; \
	done

# All tests, with the race detector where there is a C compiler. The packages
# that need namespaces make their own, as root or in a user namespace. Those
# that count lost packets, or crowd the machine, come last and one at a time.
# What is said of Services and policies has to be true of the fast path as well.
# make test HOSTILE=1 does it while test/hostile keeps the machine busy.
HOSTILE ?=
CROWDS  = ./test/stress ./test/demo ./test/fabric ./test/service ./test/policy ./test/fastpath
BOTH    = Reach|Affinity|HostPort|Zones|StaleFlows|Forbidden|Fragment
LIMIT   = $(if $(HOSTILE),120m,20m)
test: build
	@test/prepare.sh test
	@$(if $(HOSTILE),$(GO) build -o bin/hostile ./test/hostile)
	@race=$$(test/prepare.sh race); under=$(if $(HOSTILE),$(CURDIR)/bin/hostile); \
		others=$$($(GO) list ./... | grep -v -E '/test/(stress|demo|fabric|service|policy|fastpath|bgp|bgp/demo)$$'); \
		$$under $(GO) test $$race -timeout $(LIMIT) $$others && \
		(cd test/e2e && $$under $(GO) test $$race -timeout $(LIMIT) ./...) && \
		$$under $(GO) test $$race -timeout $(LIMIT) -p 1 $(CROWDS) && \
		FLATNET_DATAPATH=ebpf $$under $(GO) test $$race -timeout $(LIMIT) -p 1 -run '$(BOTH)' ./test/service ./test/policy

# The Helm chart, by Helm itself. No part of make test, since it compiles Helm: that takes
# one to three minutes where nothing is cached, and seconds afterwards. The go command
# does not see that files outside of the module have changed, so nothing it remembers counts.
chart:
	@staticcheck=$$($(GO) tool -n staticcheck); cd test/chart && $(GO) vet ./... && $$staticcheck ./... && $(GO) test -count=1 ./...

# The page in a browser, Debian's Chromium: that it shows what a cluster is. Of clusters in
# namespaces, and of one with 300 nodes that is simulated. make page PICTURES=docs/images
# writes the pictures of the documentation as well.
PICTURES ?=
page: build
	@test/prepare.sh page
	@staticcheck=$$($(GO) tool -n staticcheck); cd test/page && $(GO) vet ./... && $$staticcheck ./... && \
		$(GO) test -count=1 -timeout 20m ./... $(if $(PICTURES),-pictures '$(abspath $(PICTURES))')

# BGP with BIRD and FRR, which nobody here wrote, in namespaces: two racks with two
# routers each. No part of make test, for it fetches them, and waits for hold times.
# flatnet-bgp is built without the race detector: GoBGP has races of its own.
bgp: build
	@test/prepare.sh bgp
	@race=$$(test/prepare.sh race); $(GO) test $$race -count=1 -timeout 20m -p 1 ./test/bgp/...

# The tests on other kernels than this machine's, each in an emulated machine:
# make kernels K=6.1 RUN=pkg/fabric; docs/tested-kernels.md. Takes minutes.
K       ?=
RUN     ?=
ARCH    ?=
KERNELS ?=
kernels:
	@test/prepare.sh kernels $(ARCH)
	@$(GO) run ./test/kernels $(if $(K),-k '$(K)') $(if $(RUN),-run '$(RUN)') $(if $(ARCH),-arch $(ARCH)) $(KERNELS)

# Another architecture than this machine's: everything is vetted, and what needs no kernel
# of its own is tested, with the programs alone emulated. s390x is big-endian; arm64 is what
# releases have. Left out are random histories and crashes at every step, which take hours so.
PURE = ./ipam ./pkg/attachment ./pkg/cni ./pkg/ipamplugin ./pkg/netconf ./pkg/node
LONG = TestFaults|TestKilled|TestProcesses|TestModel|TestDisturbed|TestGoroutines
arm64: EMULATOR = qemu-aarch64-static
s390x: EMULATOR = qemu-s390x-static
arm64 s390x:
	@test/prepare.sh emulator $(EMULATOR)
	@GOARCH=$@ CGO_ENABLED=0 $(GO) vet ./...
	@GOARCH=$@ CGO_ENABLED=0 $(GO) test -exec $(EMULATOR) -short -skip '$(LONG)' -timeout 10m $(PURE)

# The objects of eBPF programs, of their source: they are committed, so that Go alone
# builds flatnet.
generate:
	@test/prepare.sh generate
	@$(GO) generate ./pkg/fastpath

# gofmt, vet and staticcheck over everything, and whether the objects of eBPF programs are
# what their source says.
lint:
	@test/prepare.sh lint
	@test/programs.sh
	@unformatted=$$(gofmt -l cmd ipam pkg test); \
		if [ -n "$$unformatted" ]; then echo "gofmt wants to change:"; echo "$$unformatted"; exit 1; fi
	@staticcheck=$$($(GO) tool -n staticcheck); for module in . test/e2e; do \
		(cd $$module && $(GO) vet ./... && $$staticcheck ./...) || exit 1; done

# Compares with Debian's containernetworking-plugins and kube-proxy, and writes
# docs/benchmarks.md. Takes minutes and a quiet machine.
bench: build
	@test/prepare.sh bench
	@$(GO) run ./test/bench -o docs/benchmarks.md

# Three nodes on this machine that run flatnetd, two subnets and a router: pods
# reach pods, with no address translation.
demo: build
	@CGO_ENABLED=0 $(GO) run -trimpath ./test/demo # as build does, which has compiled most of it

# Two racks with two routers each, BIRD and FRR, that know the pods: what each of them is
# told, and what is lost when one dies. As root.
demo-bgp: build
	@test/prepare.sh bgp
	@CGO_ENABLED=0 $(GO) run -trimpath ./test/bgp/demo

# A real Kubernetes on this machine, with flatnet installed in it; test/e2e/README.md
# lists the flags: make cluster CLUSTER="-workers 2 -fabric vxlan"
CLUSTER ?=
cluster: build bin/e2e/cluster
	@bin/e2e/cluster up $(CLUSTER)

cluster-down: bin/e2e/cluster
	@bin/e2e/cluster down

# Tests on the cluster that runs: make e2e E2E="-run tutorial"
E2E ?=
e2e: bin/e2e/e2e
	@bin/e2e/e2e $(E2E)

# The same, and upstream's other tests of the network.
e2e-full: bin/e2e/e2e
	@bin/e2e/e2e -upstream all $(E2E)

# How long a pod waits for its network, on the cluster that runs, beside ptp and
# host-local; into docs/benchmarks.md. Takes minutes and a quiet machine.
BENCH_CLUSTER ?= -o docs/benchmarks.md
bench-cluster: bin/e2e/podtime
	@bin/e2e/podtime $(BENCH_CLUSTER)

.PHONY: bin/e2e/cluster bin/e2e/e2e bin/e2e/podtime
bin/e2e/cluster bin/e2e/e2e bin/e2e/podtime:
	@cd test/e2e && $(GO) build -o ../../$@ ./$(@F)

# A Debian with systemd in an emulated machine is a node, and what manages real nodes'
# networks is started and restarted there: docs/managers.md. Takes some twenty
# minutes: make managers MANAGERS="-run firewalld"
MANAGERS ?=
managers: build
	@test/prepare.sh managers
	@$(GO) run ./test/kernels/managers $(MANAGERS)

# Each fuzz target for a while: make fuzz FUZZTIME=10m
FUZZTIME ?= 20s
fuzz:
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

# What a release consists of, but images, into bin/release: built twice, and compared
# bit by bit. It wants everything committed. Takes minutes, as nothing is cached the
# second time: docs/releasing.md.
release:
	@$(GO) run ./test/release -version '$(VERSION)' -o bin/release

clean:
	rm -rf bin
