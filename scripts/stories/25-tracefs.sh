# SPDX-License-Identifier: GPL-2.0-or-later

try stat -c '%A %u:%g %s' /sys/kernel/tracing /sys/kernel/tracing/enabled_functions \
	/sys/kernel/tracing/available_filter_functions /sys/kernel/debug /sys/kernel/debug/dynamic_debug \
	/sys/kernel/debug/dynamic_debug/control
try put 1 /sys/kernel/tracing/enabled_functions
try put 1 /sys/kernel/tracing/available_filter_functions
try mkdir /sys/kernel/tracing/new
try touch /sys/kernel/debug/new
try cat /sys/kernel/debug/dynamic_debug/none
try load test_klp_callbacks_mod
try load test_klp_callbacks_busy
try load test_klp_livepatch
settle
grep test_klp /sys/kernel/tracing/available_filter_functions | sort
try wc -l /sys/kernel/tracing/enabled_functions
off test_klp_livepatch
try rmmod test_klp_callbacks_mod test_klp_callbacks_busy
grep test_klp /sys/kernel/tracing/available_filter_functions
log
