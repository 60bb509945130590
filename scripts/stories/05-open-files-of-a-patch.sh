# SPDX-License-Identifier: GPL-2.0-or-later
# Reads from and writes to an open file of a patch, after the patch has changed and after it is gone.

try load livepatch-sample
settle
patch=$klp/livepatch_sample
exec 3<$patch/enabled 4<$patch/transition 5<$patch/vmlinux/patched 6<>$patch/enabled 7<$patch/enabled
cat <&3
try put 0 $patch/enabled
settle
said() { # COMMAND: run a command on an open file
	echo "\$ $*"
	eval "$@" 2>&1 | sed 's/^.*: line [0-9]*: //'
	echo "(status ${PIPESTATUS[0]})"
}
for file in 3 4 5 6 7; do said "cat <&$file"; done
said "cat <&3"
said "printf 1 >&6"
said "stat -L -c '%F %h' /proc/self/fd/3"
exec 3<&- 4<&- 5<&- 6<&- 7<&-
cd /sys/module/livepatch_sample
try rmmod livepatch_sample
try ls
try cat refcnt
cd "$work"
try load livepatch-sample
settle
cd $patch/vmlinux
off livepatch_sample
try ls
try cat patched
try pwd
cd "$work"
log
