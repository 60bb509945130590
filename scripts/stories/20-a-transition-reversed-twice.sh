# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_callbacks_busy block_transition=Y
try load test_klp_callbacks_demo
try put 0 $klp/test_klp_callbacks_demo/enabled
try cat $klp/test_klp_callbacks_demo/enabled $klp/test_klp_callbacks_demo/transition
settle
try rmmod test_klp_callbacks_demo
try rmmod test_klp_callbacks_busy
log
