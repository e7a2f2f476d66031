# Everything that the targets need beside Go, make and git is installed into .bin, which git ignores.

SHELL       := bash
.SHELLFLAGS := -o pipefail -c

BIN := $(CURDIR)/.bin
GO  ?= go

PROMETHEUS_VERSION    := 3.16.0
PROMETHEUS_MODULE     := v0.316.0
GOLANGCI_LINT_VERSION := v2.15.0

VERSION  := $(shell cat VERSION)
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
BRANCH   := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null)
V        := github.com/prometheus/common/version
LDFLAGS  := -s -w -X $(V).Version=$(VERSION) -X $(V).Revision=$(REVISION) -X $(V).Branch=$(BRANCH) \
            -X $(V).BuildUser=$(shell id -un)@$(shell uname -n) -X $(V).BuildDate=$(shell date -u +%Y%m%d-%H:%M:%S)

# go ... leaves testdata out, where the simulator and the demo live.
PACKAGES := ./... ./testdata/stack ./testdata/tikvsim/... ./testdata/demo

.PHONY: all build test unit lint fmt demo tools clean
.DELETE_ON_ERROR:

all: build

build: ## The static binary.
	CGO_ENABLED=0 $(GO) build -trimpath -tags netgo -ldflags '$(LDFLAGS)' -o operator_store_exporter .

test: tools lint unit ## Vet, lint, and all tests against the real Prometheus, with the race detector.

unit:
	$(GO) test -race -timeout 15m $(PACKAGES)

lint: $(BIN)/golangci-lint
	$(GO) vet $(PACKAGES)
	$(BIN)/golangci-lint run $(PACKAGES)

fmt: $(BIN)/golangci-lint
	$(BIN)/golangci-lint fmt

demo: build $(BIN)/prometheus ## Six simulated stores, their Prometheus, the exporter and a federation Prometheus.
	$(GO) build -o $(BIN)/demo ./testdata/demo
	@exec $(BIN)/demo -exporter ./operator_store_exporter -prometheus $(BIN)/prometheus $(if $(DEMO_ONCE),-once)

tools: $(BIN)/prometheus $(BIN)/promtool $(BIN)/golangci-lint

# Of what the build says every hundredth package is shown, and everything that is no package: errors.
PROGRESS := / / && !/^go: downloading/ { print; fflush() } NR % 100 == 0 { print NR " steps"; fflush() }

# All service discoveries are left out: they are most of Prometheus' build, and nothing here uses them.
$(BIN)/prometheus $(BIN)/promtool: $(BIN)/.prometheus-$(PROMETHEUS_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.prometheus-$(PROMETHEUS_VERSION):
	@mkdir -p $(BIN)
	@echo "Building Prometheus $(PROMETHEUS_VERSION): some minutes, the first time only."
	GOBIN=$(BIN) $(GO) install -v -tags remove_all_sd,netgo -ldflags '-X $(V).Version=$(PROMETHEUS_VERSION)' \
		github.com/prometheus/prometheus/cmd/prometheus@$(PROMETHEUS_MODULE) \
		github.com/prometheus/prometheus/cmd/promtool@$(PROMETHEUS_MODULE) 2>&1 | awk '$(PROGRESS)'
	@touch $@

$(BIN)/golangci-lint: $(BIN)/.golangci-lint-$(GOLANGCI_LINT_VERSION)
	@test -x $@ || { rm $<; $(MAKE) $<; }

$(BIN)/.golangci-lint-$(GOLANGCI_LINT_VERSION):
	@mkdir -p $(BIN)
	@echo "Building golangci-lint $(GOLANGCI_LINT_VERSION): a minute or two, the first time only."
	GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@touch $@

clean: ## What was built; the tools stay.
	rm -f operator_store_exporter $(BIN)/demo
