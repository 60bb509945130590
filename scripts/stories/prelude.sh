# SPDX-License-Identifier: GPL-2.0-or-later
# Functions for the stories beside it. Each story looks at something that live patching shows to users, with and
# without errors. compare-with-qemu runs prelude and story in bash, as root, on a fresh machine of both kernels.

export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset "${!KLPFS@}"
modules=/lib/modules/$(uname -r)/extra
klp=/sys/kernel/livepatch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

begin() { printf '\n=== %s\n' "$*"; dmesg -C; }

# Print and clear the log, with levels. Registers, code and traces are left out of reports.
log() {
	echo "--- log"
	dmesg --raw | sed -E '/^<[0-9]>\[[^]]*\] (Call Trace:| <TASK>)/,/<\/TASK>/d; /^<[0-9]>\[[^]]*\] (RIP|Code|RSP|R..|FS|CS|CR2|PKRU|PGD|Hardware name|Modules linked in): ?/d'
	dmesg -C
}

# Run a command; print it, its output, and its exit status unless it is 0. Bash begins its errors with a line number,
# which is left out.
try() {
	echo "\$ $*"
	"$@" </dev/null 2>&1 | sed 's/^.*: line [0-9]*: //'
	local status=${PIPESTATUS[0]}
	((status == 0)) || echo "(status $status)"
}

put() { printf -- "$1" >"$2"; }
load() { local name=$1; shift; insmod "$modules/$name.ko" "$@"; }

# Print every file below a directory: type, mode, links, owner, size, and contents.
tree() {
	echo "--- $1"
	[[ -e $1 ]] || { echo "none"; return; }
	local line path lines
	find "$1" -printf '%p\t%M %n %U:%G %s %p' \( -type l -printf ' -> %l' -o -true \) -printf '\n' | sort | while IFS= read -r line; do
		path=${line%%$'\t'*}
		echo "${line#*$'\t'}"
		[[ -f $path && ! -L $path && $path != */notes/* ]] || continue
		if mapfile lines 2>"$work/error" <"$path"; then
			((${#lines[@]} == 0)) || printf '    %s' "${lines[@]}"
		else
			sed 's/^.*: line [0-9]*: /    /' "$work/error"
		fi
	done
}

look() {
	tree $klp
	echo "--- enabled_functions"
	cat /sys/kernel/tracing/enabled_functions
	echo "--- proc/modules"
	cat /proc/modules
	echo "--- tainted $(cat /proc/sys/kernel/tainted)"
}

# Wait for the end of a transition, as long as the kernel's own tests.
settle() {
	local file state i
	for ((i = 0; i < 600; i++)); do
		for file in $klp/*/transition; do
			read -r state 2>/dev/null <"$file" && ((state)) && sleep 0.1 && continue 2
		done
		return
	done
	echo "the transition did not end"
}

off() { try put 0 "$klp/$1/enabled"; settle; try rmmod "$1"; }
