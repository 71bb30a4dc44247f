#!/usr/bin/env bash
# Runs a command with a Docker engine: with-engine.sh COMMAND...
#
# Where there is none, an engine of its own runs as long as the command, from Debian's packages in
# .cache/engine. That takes root, and a machine where root may make namespaces. Where no engine is
# to be had the command is not run: one sentence says why, and the exit status is 0.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker version > /dev/null 2>&1; then
    exec "$@"
fi

give_up() {
    echo "The image is not checked: $1."
    exit 0
}

[ "$(id -u)" = 0 ] || give_up "there is no Docker engine, and only root can start one"
command -v apt-get > /dev/null || give_up "there is no Docker engine, and no apt-get to install one"

engine=$PWD/.cache/engine
mkdir -p "$engine/config"
export PATH=$engine/root/usr/sbin:$engine/root/usr/bin:$PATH
export DOCKER_HOST=unix://$engine/docker.sock DOCKER_CONFIG=$engine/config

# apt-get with another suite than that of this machine.
apt_of() {
    local folder=$engine/apt-$1
    shift
    apt-get --quiet -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" \
        -o APT::Sandbox::User=root "$@"
}

install_from() {
    local suite=$1 folder=$engine/apt-$1 deb
    rm -rf "$engine/debs" "$engine/root"
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$engine/debs" "$engine/root"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" \
        > "$folder/sources.list"
    apt_of "$suite" update || return
    (cd "$engine/debs" && apt_of "$suite" download \
        containerd docker-buildx docker-cli docker-compose docker.io) || return
    for deb in "$engine"/debs/*.deb; do
        dpkg-deb -x "$deb" "$engine/root" || return
    done
    # That of this machine goes with its libraries.
    rm -f "$engine"/root/usr/*bin/runc
    ln -sfn "$engine/root/usr/libexec/docker/cli-plugins" "$engine/config/cli-plugins"
    # Whether they can be run here.
    dockerd --version && docker --version
}

install() {
    set -x
    apt-get --quiet update
    apt-get --quiet install --yes --no-install-recommends \
        ca-certificates iproute2 iptables mmdebstrap runc
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)
    # The stable release, and what comes next.
    install_from trixie || install_from forky
    touch "$engine/installed"
}

if ! [ -e "$engine/installed" ]; then
    install > "$engine/install.log" 2>&1 & wait $! ||
        give_up "a Docker engine could not be installed, see $engine/install.log"
fi

count_rules() {
    "$1-save" 2> /dev/null | grep -c '^-A' || true
}

# Leave the network as it was found, unless there are rules of others in it.
stop() {
    kill $daemon 2> /dev/null || true
    wait $daemon || true
    echo "$forwarding" 2> /dev/null > /proc/sys/net/ipv4/ip_forward || true
    $had_bridge || ip link delete docker0 2> /dev/null || true
    local command table
    for command in iptables ip6tables; do
        [ "${rules[$command]}" = 0 ] || continue
        for table in filter nat raw; do
            "$command" -t "$table" -F && "$command" -t "$table" -X || true
        done 2> /dev/null
        "$command" -P FORWARD ACCEPT 2> /dev/null || true
    done
}

declare -A rules=([iptables]=$(count_rules iptables) [ip6tables]=$(count_rules ip6tables))
forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
had_bridge=false
[ ! -e /sys/class/net/docker0 ] || had_bridge=true
dockerd --data-root "$engine/data" --exec-root "$engine/exec" --pidfile "$engine/docker.pid" \
    --host "$DOCKER_HOST" --log-level warn > "$engine/dockerd.log" 2>&1 &
daemon=$!
trap stop EXIT
until docker version > /dev/null 2>&1; do
    kill -0 $daemon 2> /dev/null ||
        give_up "no Docker engine can be started here: $(tail -n 1 "$engine/dockerd.log")"
    sleep 0.2
done
"$@"
