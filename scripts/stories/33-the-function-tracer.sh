# SPDX-License-Identifier: GPL-2.0-or-later

cd /sys/kernel/tracing
# Print the entries of the trace without task and time.
entries() { sed -E 's/^ *[^#]*-[0-9]+ +\[/[/; s/ +[0-9]+\.[0-9]+:/ TIME:/' trace; }

try stat -c '%A %u:%g %s %n' current_tracer tracing_on trace set_ftrace_filter set_ftrace_notrace
try cat current_tracer tracing_on set_ftrace_filter set_ftrace_notrace
entries
put cmdline_proc_show set_ftrace_filter
try put function current_tracer
try cat current_tracer set_ftrace_filter
try sed 's/0x[0-9a-f]*/ADDRESS/' enabled_functions
cat /proc/cmdline /proc/version >/dev/null
entries
echo version_proc_show >>set_ftrace_filter
try cat set_ftrace_filter
cat /proc/cmdline /proc/version >/dev/null
entries
cat /proc/version >/dev/null
echo >trace
entries
try put 0 tracing_on
cat /proc/version >/dev/null
try put 2 tracing_on
try put x tracing_on
try cat tracing_on
entries
try put nonsense current_tracer
try put nop current_tracer
try put nonsense set_ftrace_filter
try cat current_tracer set_ftrace_filter
# (An empty filter selects every function.)
for word in 'cmdline_proc_show version_proc_show' 'cmd*show' '*dline_proc_sh*' '*cmdline_proc_show' 'cmd?ine_proc_show'; do
	put "$word" set_ftrace_filter
	try cat set_ftrace_filter
done
echo '!cmdline_proc_show' >>set_ftrace_filter
echo 'version_proc_show' >>set_ftrace_filter
try cat set_ftrace_filter
try put cmdline_proc_show:nonsense set_ftrace_filter
echo 'version_proc_show' >set_ftrace_notrace
try cat set_ftrace_notrace
echo 'cmdline_proc_show version_proc_show' >set_ftrace_filter
put function current_tracer
cat /proc/cmdline /proc/version >/dev/null
entries
: >set_ftrace_notrace
try cat set_ftrace_notrace
load livepatch-sample
settle
cat /proc/cmdline
entries
try sed 's/0x[0-9a-f]*/ADDRESS/' enabled_functions
off livepatch_sample
cat /proc/cmdline >/dev/null
entries
put 0 /proc/sys/kernel/ftrace_enabled
cat /proc/cmdline >/dev/null
try cat enabled_functions
put 1 /proc/sys/kernel/ftrace_enabled
try wc -l enabled_functions
try put nop current_tracer
try cat enabled_functions
entries
: >set_ftrace_filter
try cat set_ftrace_filter
log
