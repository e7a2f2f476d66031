# Builds, tests, and releases the exporter. You need Go, Node.js, make, and git; all other tools are
# installed into .bin, which git ignores.

SHELL       := bash
.SHELLFLAGS := -o pipefail -c

BIN := $(CURDIR)/.bin
GO  ?= go

PROMETHEUS_VERSION    := 3.16.0
PROMETHEUS_MODULE     := v0.316.0
VICTORIA_VERSION      := v1.150.0
GOLANGCI_LINT_VERSION := v2.15.0
CYCLONEDX_VERSION     := v1.10.0
ACTIONLINT_VERSION    := v1.7.12
MARKDOWNLINT_VERSION  := $(shell sed -n 's|.*"markdownlint-cli2": "\(.*\)".*|\1|p' tools/markdownlint/package.json)
CORTEX_VERSION        := $(shell sed -n 's|.*github.com/cortexproject/cortex \(v[^ ]*\).*|\1|p' tools/cortex/go.mod)
THANOS_VERSION        := $(shell sed -n 's|.*github.com/thanos-io/thanos \(v[^ ]*\).*|\1|p' tools/thanos/go.mod)
VALE_VERSION          := $(shell sed -n 's|.*github.com/vale-cli/vale/v3 \(v[^ ]*\).*|\1|p' tools/vale/go.mod)

VERSION  := $(shell cat VERSION)
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
BRANCH   := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null)
BUILDER  := $(shell id -un)@$(shell uname -n)
DATE     := $(shell date -u +%Y%m%d-%H:%M:%S)
V        := github.com/prometheus/common/version
LDFLAGS   = -s -w -X $(V).Version=$(VERSION) -X $(V).Revision=$(REVISION) -X $(V).Branch=$(BRANCH) \
            -X $(V).BuildUser=$(BUILDER) -X $(V).BuildDate=$(DATE)

PACKAGES := ./...

.PHONY: all build test unit lint lint-go lint-layout lint-markdown lint-prose fmt demo soak fuzz screenshots bench image release tools clean
.DELETE_ON_ERROR:

all: build

build: ## Build the static binary.
	CGO_ENABLED=0 $(GO) build -trimpath -tags netgo -ldflags '$(LDFLAGS)' -o operator_store_exporter .

test: tools lint unit fuzz ## Run vet, the linters, all tests with the race detector against real upstreams, and short fuzzing.

unit: ## Run the tests of all modules. The tests in e2e need the tools.
	$(GO) test -race $(PACKAGES)
	cd examples && $(GO) test -race ./...
	cd e2e && $(GO) test -race -timeout 15m ./...

# The modules of this repository, and all of its files.
MODULES := . $(patsubst %/go.mod,%,$(wildcard */go.mod))
FILES    = $(wildcard $(shell git ls-files --cached --others --exclude-standard))

lint: lint-go lint-layout lint-markdown lint-prose ## Linters for code, comments and documentation; with -k, all of them run.

lint-go: $(BIN)/golangci-lint
	@failed=0; for module in $(MODULES); do echo "lint $$module"; \
		(cd $$module && $(GO) vet ./... && $(BIN)/golangci-lint run ./...) || failed=1; done; exit $$failed

lint-layout:
	@LC_ALL=C tools/check-layout $(filter %.go %.yml %.yaml .ci/% Dockerfile Makefile,$(FILES))

lint-markdown: $(BIN)/markdownlint/.installed
	@$(BIN)/markdownlint/node_modules/.bin/markdownlint-cli2 --config tools/markdownlint/.markdownlint-cli2.yaml \
		$(filter %.md,$(FILES))

lint-prose: $(BIN)/vale
	@$(BIN)/vale --config=tools/vale/vale.ini test tools/vale/styles
	@$(BIN)/vale --config=tools/vale/vale.ini --output=line \
		$(filter-out LICENSE %.png %.mod %.sum %/package-lock.json tools/vale/styles/%,$(FILES))

fmt: $(BIN)/golangci-lint ## Formats the code and adds missing blank lines.
	@set -e; for module in $(MODULES); do \
		(cd $$module && $(BIN)/golangci-lint fmt && $(BIN)/golangci-lint run --enable-only=wsl_v5 --fix ./...); done

demo: build $(BIN)/prometheus ## Run six simulated stores, their Prometheus, the exporter, and a federation Prometheus.
	cd e2e && $(GO) build -o $(BIN)/demo ./demo
	@exec $(BIN)/demo -exporter ./operator_store_exporter -prometheus $(BIN)/prometheus $(if $(DEMO_ONCE),-once)

FUZZTIME ?= 3s
fuzz: ## Run each fuzz target for FUZZTIME.
	@set -e; for target in internal/storematch:FuzzMatchStores config:FuzzLoad internal/promqlexpr:FuzzOneOf internal/promqlexpr:FuzzTransform collector:FuzzQueries internal/bucketwindow:FuzzQuantile internal/promapi:FuzzDecode internal/statuspage:FuzzPage; do \
		echo "$$target $(FUZZTIME)"; $(GO) test -run '^$$' -fuzz "^$${target#*:}$$" -fuzztime $(FUZZTIME) ./$${target%:*}; done

soak: build ## Inject random faults and reloads for SOAK (5m) and check every response to many scrapers.
	cd e2e && $(GO) build -o $(BIN)/soak ./soak
	@exec $(BIN)/soak -exporter ./operator_store_exporter $(if $(SOAK),-duration $(SOAK))

screenshots: $(BIN)/prometheus $(BIN)/browser/.installed $(BIN)/browser/chromium ## Retake the screenshots in docs/images.
	cd e2e && SCREENSHOTS=$(CURDIR)/docs/images $(GO) test -count=1 -run '^TestScreenshots$$' .

# BENCH_STORES lists the numbers of stores to measure: 3,30,300,1000,3000 by default.
bench: build $(BIN)/prometheus $(BIN)/vmalert ## Compare a scrape with alternatives. Takes about 45 minutes.
	cd bench && $(GO) build -o $(BIN)/bench . && exec $(BIN)/bench $(if $(BENCH_STORES),-stores $(BENCH_STORES))

PODMAN ?= podman
image: build ## Build a container image with the binary, for this platform.
	$(PODMAN) build -t operator_store_exporter:$(VERSION) .

# A release binary records its commit, not where and when it was built.
release: BRANCH  := HEAD
release: BUILDER := release
release: DATE    := $(shell TZ=UTC git show -s --format=%cd --date=format-local:%Y%m%d-%H:%M:%S HEAD 2>/dev/null)
release: $(BIN)/cyclonedx-gomod ## Build tarballs of the commit for all platforms in .tarballs, with checksums and module lists.
	VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' GO='$(GO)' CYCLONEDX='$<' .ci/release
	@cat .tarballs/sha256sums.txt

tools: $(BIN)/prometheus $(BIN)/promtool $(BIN)/golangci-lint $(BIN)/actionlint $(BIN)/prometheus-old $(BIN)/victoria-metrics \
	$(BIN)/thanos $(BIN)/cortex $(BIN)/markdownlint/.installed $(BIN)/vale \
	$(BIN)/browser/.installed $(BIN)/browser/chromium ## Install what the tests and linters need into .bin.

# Filters the output of go install -v: shows the number of steps after every hundred packages, and
# all lines that are not package names, such as errors.
PROGRESS := / / && !/^go: downloading/ { print; fflush() } NR % 100 == 0 { print NR " steps"; fflush() }

# Built without service discoveries: they take most of the build time of Prometheus, and nothing
# here uses them.
$(BIN)/prometheus $(BIN)/promtool: $(BIN)/.prometheus-$(PROMETHEUS_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.prometheus-$(PROMETHEUS_VERSION):
	@mkdir -p $(BIN)
	@echo "Building Prometheus $(PROMETHEUS_VERSION). This takes a few minutes, the first time only."
	GOBIN=$(BIN) $(GO) install -v -tags remove_all_sd,netgo -ldflags '-X $(V).Version=$(PROMETHEUS_VERSION)' \
		github.com/prometheus/prometheus/cmd/prometheus@$(PROMETHEUS_MODULE) \
		github.com/prometheus/prometheus/cmd/promtool@$(PROMETHEUS_MODULE) 2>&1 | awk '$(PROGRESS)'
	@touch $@

$(BIN)/golangci-lint: $(BIN)/.golangci-lint-$(GOLANGCI_LINT_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.golangci-lint-$(GOLANGCI_LINT_VERSION):
	@mkdir -p $(BIN)
	@echo "Building golangci-lint $(GOLANGCI_LINT_VERSION). This takes a minute or two, the first time only."
	GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@touch $@

$(BIN)/victoria-metrics: $(BIN)/.victoria-metrics-$(VICTORIA_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.victoria-metrics-$(VICTORIA_VERSION):
	@mkdir -p $(BIN)
	@echo "Building VictoriaMetrics $(VICTORIA_VERSION). This takes a minute, the first time only."
	GOBIN=$(BIN) $(GO) install github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics@$(VICTORIA_VERSION)
	@touch $@

$(BIN)/vmalert: $(BIN)/.vmalert-$(VICTORIA_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.vmalert-$(VICTORIA_VERSION):
	@mkdir -p $(BIN)
	@echo "Building vmalert $(VICTORIA_VERSION). This takes a minute, the first time only."
	GOBIN=$(BIN) $(GO) install github.com/VictoriaMetrics/VictoriaMetrics/app/vmalert@$(VICTORIA_VERSION)
	@touch $@

$(BIN)/actionlint: $(BIN)/.actionlint-$(ACTIONLINT_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.actionlint-$(ACTIONLINT_VERSION):
	@mkdir -p $(BIN)
	GOBIN=$(BIN) $(GO) install github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION)
	@touch $@

$(BIN)/vale: $(BIN)/.vale-$(VALE_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

# Its parsers are generated C code with warnings.
$(BIN)/.vale-$(VALE_VERSION):
	@mkdir -p $(BIN)
	@echo "Building vale $(VALE_VERSION): a minute, the first time only."
	cd tools/vale && CGO_CFLAGS='-O2 -w' GOBIN=$(BIN) $(GO) install -ldflags '-s -w -X main.version=$(VALE_VERSION)' \
		github.com/vale-cli/vale/v3/cmd/vale
	@touch $@

$(BIN)/markdownlint/.installed: $(BIN)/.markdownlint-$(MARKDOWNLINT_VERSION)
	@test -e $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.markdownlint-$(MARKDOWNLINT_VERSION):
	@command -v npm >/dev/null || { echo "Linting Markdown needs Node.js 20 or later with npm." >&2; exit 1; }
	@mkdir -p $(BIN)/markdownlint
	cp tools/markdownlint/{package.json,package-lock.json,.npmrc} $(BIN)/markdownlint
	cd $(BIN)/markdownlint && npm ci --loglevel=error
	@touch $(BIN)/markdownlint/.installed $@

$(BIN)/thanos: $(BIN)/.thanos-$(THANOS_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

# Thanos and Cortex replace modules, which only a main module may do: "go install" refuses them.
# Without the tag slicelabels, they crash when they receive their first gRPC call.
$(BIN)/.thanos-$(THANOS_VERSION):
	@mkdir -p $(BIN)
	@echo "Building Thanos $(THANOS_VERSION): two minutes, the first time only."
	cd tools/thanos && $(GO) build -tags slicelabels -ldflags '-s -w -X $(V).Version=$(THANOS_VERSION:v%=%)' \
		-o $(BIN)/thanos github.com/thanos-io/thanos/cmd/thanos
	@touch $@

$(BIN)/cortex: $(BIN)/.cortex-$(CORTEX_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.cortex-$(CORTEX_VERSION):
	@mkdir -p $(BIN)
	@echo "Building Cortex $(CORTEX_VERSION): two minutes, the first time only."
	cd tools/cortex && $(GO) build -tags slicelabels -ldflags '-s -w -X main.Version=$(CORTEX_VERSION:v%=%)' \
		-o $(BIN)/cortex github.com/cortexproject/cortex/cmd/cortex
	@touch $@

$(BIN)/cyclonedx-gomod: $(BIN)/.cyclonedx-gomod-$(CYCLONEDX_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.cyclonedx-gomod-$(CYCLONEDX_VERSION):
	@mkdir -p $(BIN)
	CGO_ENABLED=0 GOBIN=$(BIN) $(GO) install -trimpath github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION)
	@touch $@

# Prometheus 2.x, as distributions ship it. Its module no longer builds, so the Debian package is
# used.
$(BIN)/prometheus-old:
	@mkdir -p $(BIN)/old
	cd $(BIN)/old && { apt-get download prometheus || { { apt-get update || sudo apt-get update; } && apt-get download prometheus; }; } \
		|| { echo "Could not download the Debian package of Prometheus: put a Prometheus 2.x binary at $@ and try again." >&2; exit 1; }
	cd $(BIN)/old && dpkg-deb -x prometheus_*.deb . && cp usr/bin/prometheus $@
	rm -r $(BIN)/old

# Drives a browser; the lock file pins the version. It does not include a browser.
$(BIN)/browser/.installed: e2e/browser/package.json e2e/browser/package-lock.json e2e/browser/.npmrc
	@command -v npm >/dev/null || { echo "The test of the status page needs Node.js 20 or later and npm: install them and try again." >&2; exit 1; }
	@mkdir -p $(@D)
	cp $^ $(@D) && cd $(@D) && npm ci --loglevel=error
	@touch $@

# The Chromium of the system. If there is none, the Debian package is installed.
BROWSER = command -v chromium || command -v google-chrome
$(BIN)/browser/chromium:
	@mkdir -p $(@D)
	@{ $(BROWSER); } >/dev/null || { echo "Installing the Debian package chromium with apt-get."; install='env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium'; \
		{ $$install || sudo $$install || { { apt-get update || sudo apt-get update; } && { $$install || sudo $$install; }; }; } >/dev/null; } \
		|| { echo "Chromium is not on the PATH, and its package could not be installed: put a Chromium binary at $@ and try again." >&2; exit 1; }
	ln -sf "$$($(BROWSER))" $@

clean: ## Remove what was built. The tools are kept.
	rm -rf operator_store_exporter .build .tarballs $(BIN)/demo $(BIN)/soak $(BIN)/bench
