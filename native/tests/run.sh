#!/bin/sh
# Builds the core's unit tests under AddressSanitizer with UBSan, and under ThreadSanitizer, and runs them.
# Usage: run.sh [part of a test's name]. Objects are kept in native/build and rebuilt when a file is newer.
set -eu
cd "$(dirname "$0")/.."
exec make --silent --jobs 2 -f tests/Makefile "FILTER=${1:-}" check
