# SPDX-License-Identifier: GPL-2.0-or-later

try put 'plain' /dev/kmsg
try put '<3>an error\n' /dev/kmsg
try put '<30>of a daemon' /dev/kmsg
try put 'two\nlines\n' /dev/kmsg
try put '<999>much' /dev/kmsg
try put '' /dev/kmsg
try put '<6>' /dev/kmsg
log
try sysctl kernel.tainted kernel.ostype
