# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_livepatch
settle
try load livepatch-sample
settle
look
try cat /proc/cmdline
try put 0 $klp/test_klp_livepatch/enabled
settle
look
try cat /proc/cmdline
try rmmod test_klp_livepatch
try load test_klp_livepatch
settle
try cat /proc/cmdline
try put 0 $klp/livepatch_sample/enabled
settle
try rmmod livepatch_sample
try cat /proc/cmdline
off test_klp_livepatch
look
log
