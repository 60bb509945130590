# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_callbacks_busy block_transition=Y
try load test_klp_callbacks_demo
try put 1 $klp/test_klp_callbacks_demo/force
settle
look
try put 1 $klp/test_klp_callbacks_demo/force
try put 0 $klp/test_klp_callbacks_demo/enabled
settle
look
try rmmod test_klp_callbacks_demo
try load test_klp_livepatch
settle
look
off test_klp_livepatch
try rmmod test_klp_callbacks_busy
look
log
