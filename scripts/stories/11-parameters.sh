# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_callbacks_demo pre_patch_ret=-19
log
try load test_klp_callbacks_demo pre_patch_ret=abc
try load test_klp_callbacks_demo pre_patch_ret=
try load test_klp_callbacks_demo pre_patch_ret
try load test_klp_callbacks_demo pre_patch_ret=99999999999
log
try load test_klp_callbacks_demo pre_patch_ret=0x0
settle
tree /sys/module/test_klp_callbacks_demo/parameters
parameter=/sys/module/test_klp_callbacks_demo/parameters/pre_patch_ret
for text in -1 5 07 0x10 +3 '4\n' '4 ' ' 4' abc '' 2147483647 2147483648 -2147483648 -2147483649 1.5; do
	try put "$text" $parameter
	try cat $parameter
done
try put 0 $parameter
off test_klp_callbacks_demo
for text in 0 1 y N on abc '' 2; do
	try load test_klp_atomic_replace replace="$text"
	settle
	try cat /sys/module/test_klp_atomic_replace/parameters/replace
	[[ -d $klp/test_klp_atomic_replace ]] && off test_klp_atomic_replace
	[[ -d /sys/module/test_klp_atomic_replace ]] && try rmmod test_klp_atomic_replace
done
log
