# SPDX-License-Identifier: GPL-2.0-or-later
# A module whose init has died cannot be removed.

for what in warn once once; do
	try load misbehaves what=$what
	try cat /sys/module/misbehaves/taint
	try rmmod misbehaves
	log
done
for name in misbe_null misbe_text misbeh_bug; do
	sed "s/misbehaves/$name/g" "$modules/misbehaves.ko" >$name.ko
	try insmod $name.ko what=${name#*_}
	log
	cat /proc/modules
	try cat /sys/module/$name/initstate
	try rmmod $name
	try timeout 1 insmod $name.ko
done
echo "--- tainted $(cat /proc/sys/kernel/tainted)"
try load livepatch-sample
settle
try cat /proc/cmdline
off livepatch_sample
log
