# SPDX-License-Identifier: GPL-2.0-or-later

patch=$klp/livepatch_sample
try load livepatch-sample
settle
try load livepatch-sample
try rmmod livepatch_sample
try rmmod livepatch-sample
try modprobe -r livepatch_sample
try cat /sys/module/livepatch_sample/refcnt
try put 0 $patch/enabled
settle
try cat $patch/enabled
try cat /sys/module/livepatch_sample/refcnt
tree $klp
try modprobe -r livepatch_sample
try modprobe -r livepatch_sample
try rmmod livepatch_sample
try modprobe livepatch_sample
settle
try modprobe livepatch_sample
off livepatch_sample
log
