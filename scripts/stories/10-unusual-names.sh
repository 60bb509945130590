# SPDX-License-Identifier: GPL-2.0-or-later
# Unusual names of a module, a patch, an object and a function.

sample=$modules/livepatch-sample.ko
rename() { # SED-SCRIPT NAME: change the sample, whose name is then NAME
	sed "$1" "$sample" >renamed.ko
	try insmod renamed.ko
	settle
	tree $klp
	try cat /sys/kernel/tracing/enabled_functions
	try ls /sys/module/$2
	try cat /proc/cmdline
	[[ -d $klp/$2 ]] && try put 0 $klp/$2/enabled
	settle
	try rmmod $2
	log
}
rename 's/livepatch_sample/LIVEPATCH__SAMP1/g' LIVEPATCH__SAMP1
rename 's/livepatch_sample/vmlinux_vmlinux_/g' vmlinux_vmlinux_
rename 's/livepatch_sample/%s%s%s%n%p%d\\n_/g' '%s%s%s%n%p%d\n_'
rename 's/livepatch_sample/\xe4\xf6\xfc_livepatch_s/g' $'\xe4\xf6\xfc_livepatch_s'
rename 's/cmdline_proc_show/version_proc_show/g' livepatch_sample
rename 's/cmdline_proc_show/_cmdline_proc_sho/g' livepatch_sample
rename 's/\x00cmdline_proc_show\x00/\x00livepatch_sample0\x00/g' livepatch_sample
