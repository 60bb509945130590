# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_livepatch
settle
try load livepatch-sample
settle
try load test_klp_atomic_replace replace=1
settle
look
try cat /proc/cmdline
try head -n 1 /proc/meminfo
try put 1 $klp/test_klp_livepatch/enabled
try rmmod test_klp_livepatch
try rmmod livepatch_sample
look
tree /sys/module/test_klp_atomic_replace
try load test_klp_livepatch
settle
look
try put 0 $klp/test_klp_atomic_replace/enabled
settle
look
try rmmod test_klp_atomic_replace
off test_klp_livepatch
look
log
