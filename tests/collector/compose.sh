#!/usr/bin/env bash
# Builds compose-go's command into build/compose, for the tests: what `docker compose config` reads files with. Does
# nothing when it is there. Needs Go and its module proxy.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=v2.16.2
if [ -x build/compose ] && go version -m build/compose | grep -qF "github.com/compose-spec/compose-go/v2	$version	"; then
  exit 0
fi
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
GOBIN="$folder" go install "github.com/compose-spec/compose-go/v2/cmd@$version"
mkdir -p build
mv "$folder/cmd" build/compose
