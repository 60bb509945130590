# SPDX-License-Identifier: GPL-2.0-or-later
# Five patches of one function, disabled in another order; replaced at once; for a module that is loaded later.

for i in 1 2 3 4 5; do
	sed "s/any_patch/any_patc$i/g" "$modules/any_patch.ko" >any_patc$i.ko
done
on() { local i=$1; shift; try insmod any_patc$i.ko "$@"; settle; }
for i in 1 2 3 4 5; do on $i; try cat /proc/cmdline; done
look
for i in 3 5 1; do off any_patc$i; try cat /proc/cmdline; cat /sys/kernel/tracing/enabled_functions; done
on 3 replace=1
look
try cat /proc/cmdline
try rmmod any_patc2 any_patc4
on 2 name=version_proc_show replace=1
try cat /proc/version
try rmmod any_patc3
look
on 4 object=test_klp_callbacks_mod name=test_klp_callbacks_mod_init
on 5 object=test_klp_callbacks_mod name=test_klp_callbacks_mod_exit
tree $klp
try load test_klp_callbacks_mod
tree $klp
cat /sys/kernel/tracing/enabled_functions
off any_patc4
off any_patc5
try rmmod test_klp_callbacks_mod
off any_patc2
on 1 version=2
on 2 version=1
on 3 version=3
on 4 replace=1
on 5 version=1 replace=1
tree $klp
for i in 5 4 3 2 1; do [[ -d $klp/any_patc$i ]] && off any_patc$i; done
for i in 5 4 3 2 1; do [[ -d /sys/module/any_patc$i ]] && try rmmod any_patc$i; done
look
log
