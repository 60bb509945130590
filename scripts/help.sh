# SPDX-License-Identifier: GPL-2.0-or-later
# Sourced first by the shell scripts beside it: with -h or --help among the arguments, prints the comment that the
# script begins with, and ends. Afterwards
#   usage_error MESSAGE    ends the script with status 2

usage_error() {
	echo "${0##*/}: $*; see --help" >&2
	exit 2
}

for argument in "$@"; do
	case $argument in
	--) break ;;
	-h | --help)
		sed -n '1,2d; /^#/!q; s/^# \{0,1\}//p' "$0"
		exit
		;;
	esac
done
unset argument
