#!/usr/bin/env bash
# Builds the reader of compose files into build/compose, for the tests. Needs Go and its module proxy.
set -euo pipefail
cd "$(dirname "$0")"
GOFLAGS="${GOFLAGS:+$GOFLAGS }-mod=readonly" go build -trimpath -buildvcs=false -o ../../../build/compose .
