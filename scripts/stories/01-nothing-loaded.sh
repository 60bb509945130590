# SPDX-License-Identifier: GPL-2.0-or-later

look
try ls -A /sys/kernel/livepatch
try stat -c '%A %u:%g %s' /sys/module
try cat /proc/self/patch_state
try cat $klp/none/enabled
try rmmod none
