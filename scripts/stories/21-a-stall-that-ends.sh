# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_callbacks_busy block_transition=Y
try load test_klp_callbacks_demo
try cat $klp/test_klp_callbacks_demo/transition
try cat /sys/module/test_klp_callbacks_busy/parameters/block_transition
try put 0 /sys/module/test_klp_callbacks_busy/parameters/block_transition
try rmmod test_klp_callbacks_busy
settle
look
log
off test_klp_callbacks_demo
log
