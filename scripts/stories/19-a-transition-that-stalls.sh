# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_callbacks_busy block_transition=Y
try load test_klp_callbacks_demo
look
try cat $klp/test_klp_callbacks_demo/transition
states() { echo "tasks that are not there yet: $(grep -lx 0 /proc/[0-9]*/patch_state | wc -l)"; }
states
stack=$(grep -l busymod_work_func /proc/[0-9]*/stack 2>/dev/null)
echo "the one that is in the old function: $(tr -d '0-9u:' <${stack%stack}comm), $(<${stack%stack}patch_state), $(
	grep -o '[a-z_]*+0x' "$stack" | head -n 2 | tr '\n' ' ')"
try put 1 $klp/test_klp_callbacks_demo/enabled
try load livepatch-sample
try load test_klp_callbacks_demo2
try load test_klp_callbacks_mod
look
try rmmod test_klp_callbacks_demo
for text in 0 abc '' n; do try put "$text" $klp/test_klp_callbacks_demo/force; done
log
try put 0 $klp/test_klp_callbacks_demo/enabled
settle
look
try rmmod test_klp_callbacks_demo
try rmmod test_klp_callbacks_mod
try rmmod test_klp_callbacks_busy
log
