# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what is missing and leaves $python, the interpreter with klpfs in it. Sourced by the scripts beside it,
# with what pip is to install ("." or ".[test]") as the argument.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

apt_install() {
	local missing=()
	for package in "$@"; do
		dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
	done
	((${#missing[@]})) || return 0
	local sudo=
	[[ $(id -u) == 0 ]] || sudo=sudo
	$sudo apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

if [[ -n ${KLPFS_PYTHON:-} ]]; then # one that has klpfs already
	python=$KLPFS_PYTHON
	return
fi
if command -v apt-get >/dev/null; then
	# pyfuse3 is built from source where there is no wheel: it needs the headers of libfuse.
	apt_install fuse3 libfuse3-dev pkg-config gcc libc6-dev binutils
	python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
	python3 -c 'import sysconfig, os; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' \
		2>/dev/null || apt_install python3-dev
fi

python=$PWD/.venv/bin/python
[[ -x $python ]] || python3 -m venv .venv
stamp=.venv/installed-$(cat setup.cfg pyproject.toml | sha256sum | cut -c1-16)-${1//[^a-z]/}
if [[ ! -e $stamp ]]; then
	"$python" -m pip install --quiet --disable-pip-version-check -e "$1"
	touch "$stamp"
fi
PATH=$PWD/.venv/bin:$PATH
