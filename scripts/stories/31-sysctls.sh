# SPDX-License-Identifier: GPL-2.0-or-later
# Numbers that sysctls take, and operations that the directories of /proc refuse.

for file in ftrace_enabled tainted; do
	for text in '' '\n' 1 ' 1' '1 ' '\t1\n' '+1' '-1' 01 0x1 0x 1x x '1 2' '1,2' 1.5 2147483647 2147483648 -2147483648 \
		-2147483649 4294967295 99999999999999999999 '1\0' '\0001'; do
		try put "$text" /proc/sys/kernel/$file
		[[ $file == tainted ]] || try cat /proc/sys/kernel/$file
	done
	try put 1 /proc/sys/kernel/ftrace_enabled
done
try cat /proc/sys/kernel/osrelease /proc/sys/kernel/ostype
try put x /proc/sys/kernel/osrelease
try stat -c '%A %u:%g %s' /proc/sys /proc/sys/kernel /proc/sys/kernel/ftrace_enabled /proc/sys/kernel/tainted
try rm /proc/sys/kernel/tainted
try touch /proc/sys/kernel/new
try mkdir /proc/sys/new
try mkdir /proc/new
try touch /proc/new
try touch /proc/sys/new
try rmdir /proc/sys/kernel
try put x /proc/modules
try put x /proc/kallsyms
try put x /proc/version
log
