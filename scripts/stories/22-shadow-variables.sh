# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_shadow_vars
try rmmod test_klp_shadow_vars
try load livepatch-shadow-mod
try load livepatch-shadow-fix1
settle
try load livepatch-shadow-fix2
settle
tree $klp
try put 0 $klp/livepatch_shadow_fix2/enabled
settle
try put 0 $klp/livepatch_shadow_fix1/enabled
settle
try rmmod livepatch-shadow-fix2 livepatch-shadow-fix1 livepatch-shadow-mod
log
