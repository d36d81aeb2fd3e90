#!/bin/sh
# Compares the objects of eBPF programs that are committed with what clang makes of their
# source. Another version of clang may make another object that is as good, so nothing
# is said of those.
set -eu
cd "$(dirname "$0")/.."

directory=pkg/fastpath
version=14.0.6
if ! clang-14 --version 2>/dev/null | grep -q "Debian clang version $version"; then
	echo "programs: no clang $version of Debian's: the objects of $directory are not compared with their source" >&2
	exit 0
fi
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
PROGRAMS=$made go generate ./$directory >/dev/null
for file in "$made"/*; do
	if ! cmp -s "$file" "$directory/${file##*/}"; then
		echo "programs: $directory/${file##*/} is not what clang makes of the source: run make generate" >&2
		exit 1
	fi
done
