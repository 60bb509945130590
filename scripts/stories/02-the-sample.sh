# SPDX-License-Identifier: GPL-2.0-or-later

try load livepatch-sample
settle
look
tree /sys/module/livepatch_sample
try cat /proc/cmdline
try lsmod
log
off livepatch_sample
look
try cat /sys/module/livepatch_sample/refcnt
log
