# One command tests everything: make test. `make help` lists the others.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory

FUZZTIME    ?= 30s
VERSION     ?= 0.0.0-dev
TARGETS     ?= linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
# ST1005: an error may begin with the name of a method. SA1004: in fake time a nanosecond is a sharp edge, no mistake.
CHECKS      := inherit,-ST1005,-SA1004

.DEFAULT_GOAL := help
.PHONY: help test deps check vet fmt tidy staticcheck vulncheck race modules fuzz bench soak demo build dist release
.PHONY: reproduce interop

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: deps check race modules ## test everything; installs what the tests need (apt, npm, pip, Maven) where it is missing and can be

deps: ## install what the tests need: compiler, browser, Node.js, Java, servers and proxies
	@.ci/deps

check: vet fmt tidy staticcheck vulncheck ## look at the code without running it

vet:
	@echo "go vet"
	@go vet ./...
	@for os in windows darwin; do echo "go vet for $$os"; CGO_ENABLED=0 GOOS=$$os go vet ./cmd/curfew; done

fmt:
	@echo "gofmt"
	@files=$$(git ls-files --cached --others --exclude-standard '*.go' | xargs -r ls -d 2>/dev/null | xargs -r gofmt -l); \
	if [ -n "$$files" ]; then printf 'not formatted, run gofmt -w on:\n%s\n' "$$files"; exit 1; fi

staticcheck:
	@if go run $(STATICCHECK) -version >/dev/null 2>&1; then \
	  echo "staticcheck"; go run $(STATICCHECK) -checks $(CHECKS) ./...; \
	else echo "SKIPPED: staticcheck ($(STATICCHECK) could not be had)"; fi

tidy:
	@echo "go mod tidy"
	@go mod tidy -diff || { echo "go.mod or go.sum is not tidy: run go mod tidy"; exit 1; }

# govulncheck exits with 3 when it found something. Anything else that is not 0 means that it could not look.
vulncheck:
	@status=0; out=$$(go run $(GOVULNCHECK) ./... 2>&1) || status=$$?; \
	case "$$status $$out" in \
	  "0 "*) echo "govulncheck" ;; \
	  *"exit status 3"*) printf 'govulncheck\n%s\n' "$$out"; exit 1 ;; \
	  *) printf 'SKIPPED: govulncheck could not look: %s\n' "$$(grep -v '^exit status' <<<"$$out" | tail -n 1)" ;; \
	esac

race:
	@if command -v gcc >/dev/null; then echo "go test -race"; go test -race -timeout 30m ./...; \
	else echo "go test (SKIPPED: the race detector, which needs gcc)"; go test -timeout 30m ./...; fi

# Modules of their own, for what Curfew itself does not need.
modules:
	@for dir in examples/more release; do \
	  echo "go vet, go test in $$dir"; (cd $$dir && go mod tidy -diff && go vet ./... && go test -timeout 30m ./...); \
	done

# Go before 1.27 sometimes takes the end of FUZZTIME for a fault (go.dev/issue/75804). A target that fails for this
# reason alone runs once more.
fuzz: ## run each fuzz target for FUZZTIME (30s)
	@grep -rE --include='*_test.go' --exclude-dir=node_modules '^func Fuzz' . | sort | while IFS= read -r line; do \
	  name=$$(sed -E 's/.*func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$$line"); \
	  run() { go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname "$${line%%:*}")" </dev/null; }; \
	  out=$$(run | tee >(cat >&2)) || \
	  { grep -A1 -e '^--- FAIL' <<<"$$out" | grep -qx ' *context deadline exceeded' && run; } || exit 1; \
	done

# write, or check: then a table that differs from the run is a fault.
TABLES ?= write

# Without cgo the test shares what was compiled for the command. Its scenarios wait more than they compute.
interop: ## play the scenarios with real providers, and write their tables in docs/providers (TABLES=check: compare)
	@.ci/deps interop
	@cd e2e && CGO_ENABLED=0 go test -v -count=1 -timeout 30m -parallel 12 -run '^TestInterop' -interop=$(TABLES) | \
	  grep --line-buffered -vE '^=== |^ +--- PASS'

# BENCH=quick takes 3 minutes; BENCH_SESSIONS=10M adds ten million sessions in memory and Redis (and takes 20 GB).
BENCH ?= full

bench: ## measure Curfew beside a floor and other relying parties, and write docs/performance.md (BENCH=quick: 3 minutes)
	@.ci/deps bench
	@cd bench && BENCH=$(BENCH) BENCH_SESSIONS=$(BENCH_SESSIONS) go test -run '^$$' -bench '^BenchmarkAll$$' \
	  -benchtime 1x -timeout 60m .

# How long, of all stores together.
SOAK ?= 30m

soak: ## break everything for SOAK (30m) while people sign in and out, and check what was answered (docs/soak.md)
	@.ci/deps
	@mkdir -p soak.out
	@SOAK=$(SOAK) go test ./e2e -v -count=1 -timeout 0 -run '^TestThePromisesHoldWhateverBreaks$$' -artifacts \
	  -outputdir "$$PWD/soak.out" | grep -vE '^=== '

demo: ## see it work: a provider and two apps on this machine
	@go run ./cmd/curfew demo

dist: release
release: ## build what is released into dist: VERSION=1.2.3 make release
	@mkdir -p dist; cd release && go run . -source .. -out ../dist -version "$(VERSION)" \
	  -date "$${SOURCE_DATE_EPOCH:-$$(git -c log.showSignature=false log -1 --format=%ct)}" -targets "$(TARGETS)"

reproduce: ## build a release twice for every system, in different surroundings, and compare each byte
	@cd release && go test -v -count=1 -timeout 150m -run '^TestAReleaseIsReproducibleAndComplete$$' -every

build: ## build the command as it is shipped
	CGO_ENABLED=0 go build -trimpath -o curfew ./cmd/curfew
