# SPDX-License-Identifier: GPL-2.0-or-later

try load livepatch-sample
settle
patch=$klp/livepatch_sample
for file in transition force vmlinux/patched none; do
	for text in 0 1 abc ''; do try put "$text" $patch/$file; done
	try cat $patch/$file
done
try mkdir $patch/new
try rmdir $patch/vmlinux
try rm $patch/enabled
try mv $patch/enabled $patch/disabled
try ln -s enabled $patch/link
try ln $patch/enabled $patch/link
try touch $patch/new
try touch $patch/enabled
try truncate -s 0 $patch/enabled
try truncate -s 100 $patch/enabled
try dd if=$patch/enabled bs=1 skip=1 status=none
try dd if=$patch/enabled bs=1 count=1 status=none
try dd if=$patch/enabled bs=4096 skip=1 status=none
try dd if=/dev/zero of=$patch/enabled bs=4096 count=1 status=none
try dd if=/dev/zero of=$patch/enabled bs=4097 count=1 status=none
try cat $patch
try cat $patch/vmlinux
try cat $patch/enabled/none
try mknod $patch/node c 1 3
try chmod 600 $patch/enabled
try stat -c %A $patch/enabled
try chmod 644 $patch/enabled
try chown 1:1 $patch/transition
try stat -c %u:%g $patch/transition
try mkdir $klp/new
try rmdir $patch
off livepatch_sample
log
