# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_callbacks_demo
settle
look
try load test_klp_callbacks_mod
look
tree /sys/module/test_klp_callbacks_mod
try rmmod test_klp_callbacks_mod
look
try put -19 /sys/module/test_klp_callbacks_demo/parameters/pre_patch_ret
try load test_klp_callbacks_mod
look
try put 0 /sys/module/test_klp_callbacks_demo/parameters/pre_patch_ret
try load test_klp_callbacks_mod
try put 0 $klp/test_klp_callbacks_demo/enabled
settle
look
try rmmod test_klp_callbacks_demo
try rmmod test_klp_callbacks_mod
log
