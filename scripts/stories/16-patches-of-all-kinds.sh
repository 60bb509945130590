# SPDX-License-Identifier: GPL-2.0-or-later
# Patches of functions that do not exist, of symbols that are no functions, of functions without an ftrace site, ...

attempt() {
	try load any_patch "$@"
	settle
	if [[ -d $klp/any_patch ]]; then
		tree $klp/any_patch
		cat /sys/kernel/tracing/enabled_functions
		try cat /proc/cmdline
		off any_patch
	elif [[ -d /sys/module/any_patch ]]; then
		try rmmod any_patch
	fi
	log
}
attempt
attempt name=version_proc_show sympos=1
attempt name=cmdline_proc_show sympos=0
attempt sympos=2
attempt sympos=4294967297
attempt name=no_function_of_this_name
attempt name=no_function_of_this_name sympos=1
attempt name=
attempt name=klp_ftrace_handler
attempt name=jiffies
attempt name=any_patch_show
attempt name=cmdline_proc_show second=version_proc_show
attempt name=cmdline_proc_show second=no_function_of_this_name
attempt without=1
attempt empty=1
attempt nothing=1
attempt unowned=1
attempt object=vmlinux
attempt object=no_module_of_this_name
attempt object=no_module_of_this_name name=no_function_of_this_name
attempt object=
attempt object=$(printf 'o%.0s' {1..54})
attempt object=$(printf 'o%.0s' {1..55})
attempt object=$(printf 'o%.0s' {1..56})
attempt name=$(printf 'f%.0s' {1..511})
attempt name=$(printf 'f%.0s' {1..512})
attempt replace=1
attempt version=1
try load test_klp_callbacks_mod
attempt object=test_klp_callbacks_mod name=no_function_of_this_name
attempt object=test_klp_callbacks_mod name=test_klp_callbacks_mod_exit
attempt object=test_klp_callbacks_mod name=cmdline_proc_show
try rmmod test_klp_callbacks_mod
