# SPDX-License-Identifier: GPL-2.0-or-later
# /dev/kmsg, and the ways in which dmesg reads the log.

try stat -c '%A %u:%g %t,%T' /dev/kmsg
exec 3</dev/kmsg
try load livepatch-sample
settle
off livepatch_sample
echo "--- kmsg"
timeout 2 cat <&3 | tail -n 5 | sed 's/^\([0-9]*\),[0-9]*,[0-9]*,/\1,N,N,/'
exec 3<&-
echo "--- dmesg"
try dmesg --notime
try dmesg --level=warn,notice --decode --notime
try dmesg --facility=user --notime
try dmesg --console-off
try dmesg --syslog --notime
try dmesg --read-clear --notime
try dmesg
try dd if=/dev/kmsg bs=1 count=1 status=none iflag=nonblock
try dd if=/dev/zero of=/dev/kmsg bs=2000 count=1 status=none
log
