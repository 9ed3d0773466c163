#!/bin/sh
# Makes testdata/<commit> by the tree of that commit: its own signet, its own tests' mesh, its own agent with
# one file more, which records what it says and hears. Run it as root (two users), with git, Go and the Envoy
# of `make tools`:
#     test/yesterday/make.sh 8ed3a1a
# A second run makes other keys, ids and times, and otherwise the same.
set -eu
commit=$1
root=$(git rev-parse --show-toplevel)
here=$root/test/yesterday
tree=$(mktemp -d)
out=$(mktemp -d)
trap 'rm -rf "$out"; git -C "$root" worktree remove --force "$tree"' EXIT
git -C "$root" worktree add --detach "$tree" "$commit"
cp "$here/testdata/make/record.go.txt" "$tree/agent/record.go"
sed -i 's|grpc.WithPerRPCCredentials(instance(e.instance)),|&\n\t\tgrpc.WithStatsHandler(recorded),|' "$tree/agent/join.go"
grep -q recorded "$tree/agent/join.go"
mkdir -p "$tree/test/yesterday"
cp "$here/testdata/make/make_test.go.txt" "$tree/test/yesterday/make_test.go"
cd "$tree"
export CGO_ENABLED=0
go build -trimpath -o bin/signet ./cmd/signet
# The name of the host goes into what is kept.
export OUT="$out" SIGNET_BIN="$tree/bin/signet" SIGNET_ENVOY="${SIGNET_ENVOY:-$root/.bin/envoy}"
unshare --uts sh -c 'hostname host-1 && go test -count 1 -timeout 5m ./test/yesterday'
gzip -9n "$out/wire.jsonl"
to=$here/testdata/$commit
rm -rf "$to"
mv "$out" "$to"
chmod 755 "$to"
chmod 644 "$to"/*
