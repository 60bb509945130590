# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what the scripts beside it need, where it is missing: Debian packages, and klpfs with its tools for tests in
# .venv. Sourced by them. Afterwards
#   $python                the interpreter that has klpfs
#   apt_install PACKAGE... installs the Debian packages that are missing
#   PATH                   begins with .venv/bin
# and the working directory is the repository. $KLPFS_PYTHON is an interpreter to use instead of .venv.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

apt_install() {
	local package sudo='' missing=()
	for package in "$@"; do
		dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
	done
	((${#missing[@]})) || return 0
	[[ $(id -u) == 0 ]] || sudo=sudo
	echo "# installing ${missing[*]}" >&2
	$sudo apt-get update -qq >&2
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

if [[ -n ${KLPFS_PYTHON:-} ]]; then
	python=$KLPFS_PYTHON
	return
fi
if command -v apt-get >/dev/null; then
	# pip builds pyfuse3 from source where there is no wheel: this needs the headers of libfuse.
	apt_install fuse3 libfuse3-dev pkg-config gcc libc6-dev binutils
	python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
	python3 -c 'import sysconfig, os; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' \
		2>/dev/null || apt_install python3-dev
fi

python=$PWD/.venv/bin/python
[[ -x $python ]] || python3 -m venv .venv
stamp=.venv/installed-$(cat setup.cfg pyproject.toml | sha256sum | cut -c1-16)
if [[ ! -e $stamp ]]; then
	echo "# installing klpfs and its tools for tests in .venv (about half a minute)" >&2
	"$python" -m pip install --quiet --disable-pip-version-check -e '.[test]' >&2
	touch "$stamp"
fi
PATH=$PWD/.venv/bin:$PATH
