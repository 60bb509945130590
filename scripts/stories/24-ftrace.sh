# SPDX-License-Identifier: GPL-2.0-or-later

try grep -x cmdline_proc_show /sys/kernel/tracing/available_filter_functions
try sysctl kernel.ftrace_enabled
try sysctl -w kernel.ftrace_enabled=0
try load livepatch-sample
settle
try cat /proc/cmdline
look
try sysctl -w kernel.ftrace_enabled=1
try load livepatch-sample
settle
try sysctl -w kernel.ftrace_enabled=0
try sysctl kernel.ftrace_enabled
try put 2 /proc/sys/kernel/ftrace_enabled
try put abc /proc/sys/kernel/ftrace_enabled
try put '' /proc/sys/kernel/ftrace_enabled
try put -1 /proc/sys/kernel/ftrace_enabled
try sysctl kernel.ftrace_enabled
grep livepatch /sys/kernel/tracing/available_filter_functions | sort
off livepatch_sample
log
