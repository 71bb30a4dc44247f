#!/usr/bin/env bash
# Makes stand-ins for base images, where no registry of images can be reached:
# stand-in-bases.sh PYTHON NODE
#
# They consist of packages of Debian's and npm's: as close to python:3.12-slim and node:24-slim as a
# check of the image needs, and for nothing else.
set -euo pipefail
python=$1 node=$2
suite=trixie

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Where a proxy stands in front of the registries, this machine trusts its certificate.
certificates=/etc/ssl/certs/ca-certificates.crt
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
    --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
    --customize-hook="copy-in $certificates /etc/ssl/certs" \
    "$suite" root.tar "deb $mirror $suite main"
docker import --change 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' root.tar "$python"
rm root.tar

case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$(uname -m) ;;
esac
major=${node#*:}
npm pack --silent "node-linux-$arch@${major%%-*}" npm@11
npm=local/lib/node_modules/npm
mkdir -p $npm
tar -xzf node-linux-*.tgz --strip-components=1 -C local --no-same-owner
tar -xzf npm-*.tgz --strip-components=1 -C $npm --no-same-owner
chmod 755 local/bin/node $npm/bin/npm-cli.js
ln -s ../lib/node_modules/npm/bin/npm-cli.js local/bin/npm
docker build --quiet --tag "$node" --file - . << END
FROM $python
COPY local /usr/local
ENV NODE_EXTRA_CA_CERTS=$certificates
END
