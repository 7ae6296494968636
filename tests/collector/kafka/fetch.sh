#!/usr/bin/env bash
# Brings Kafka's jars from Maven Central into build/kafka, for the tests: 44 MB. Does nothing when they are there and whole.
# Needs Maven (Debian: apt-get install maven), and Java 17 to run them. Each jar has to have the checksum in SHA256SUMS;
# with --new-sums, after a change of pom.xml, that file is written anew.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
jars="$(cd "$here/../../.." && pwd)/build/kafka"
whole() { # neither another jar nor a missing one
  (cd "$1" && sha256sum --check --status "$here/SHA256SUMS" && [ "$(ls | wc -l)" = "$(wc -l <"$here/SHA256SUMS")" ]) 2>/dev/null
}
[ "${1:-}" = --new-sums ] || ! whole "$jars" || exit 0
mkdir -p "$(dirname "$jars")"
new="$(mktemp -d "$jars.XXXXXX")"
trap 'rm -rf "$new"' EXIT
mvn --batch-mode --quiet --strict-checksums --file "$here/pom.xml" \
  org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
  -DincludeScope=runtime -DoutputDirectory="$new/jars"
if [ "${1:-}" = --new-sums ]; then
  (cd "$new/jars" && sha256sum -- *.jar) >"$here/SHA256SUMS"
fi
whole "$new/jars" || { echo "the jars are not those of $here/SHA256SUMS" >&2; exit 1; }
rm -rf "$jars"
mv "$new/jars" "$jars"
