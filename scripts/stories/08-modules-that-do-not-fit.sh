# SPDX-License-Identifier: GPL-2.0-or-later

sample=$modules/livepatch-sample.ko
change() { # SED-SCRIPT [ARGUMENT ...]: change the sample, and load it with these arguments
	sed "$1" "$sample" >changed.ko
	shift
	try insmod changed.ko "$@"
	settle
	[[ -d $klp/livepatch_sample ]] && off livepatch_sample
	[[ -d /sys/module/livepatch_sample ]] && try rmmod livepatch_sample
	log
}
change 's/ mod_unload/ mod_unloaX/g'
change 's/vermagic=6\.1\.0/vermagix=6.1.0/g'
change 's/livepatch=Y/livepatcX=Y/g'
change 's/klp_enable_patch/klp_enable_patcX/g'
change 's/cmdline_proc_show/cmdline_proc_shoX/g'
change 's/name=livepatch_sample/name=livepatch_sampl\//g'
change 's/license=GPL/licensX=GPL/g'
change '' none=1
change '' none
change '' 'none="a b"' none=2
change '' dyndbg=+p
