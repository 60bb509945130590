# SPDX-License-Identifier: GPL-2.0-or-later

control=/sys/kernel/debug/dynamic_debug/control
try grep kernel/livepatch $control
try put 'file kernel/livepatch/transition.c +p' $control
try put 'func klp_try_switch_task -p' $control
try put 'nonsense' $control
try put 'file kernel/livepatch/core.c line 1-100000 +p' $control
try grep 'kernel/livepatch.*=p' $control
try load livepatch-sample
settle
off livepatch_sample
try put 'file kernel/livepatch/* -p' $control
try grep 'kernel/livepatch.*=p' $control
log
