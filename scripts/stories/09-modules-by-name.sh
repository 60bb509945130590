# SPDX-License-Identifier: GPL-2.0-or-later
# Module names as insmod, rmmod and modprobe take them; several names at once; names without a file.

try modinfo -F livepatch livepatch-sample
try modinfo -F depends livepatch-sample
try modinfo -F name test_klp_livepatch
try modinfo -F parm test_klp_callbacks_demo
try modprobe --dry-run --verbose test_klp_livepatch
try modprobe none
try modprobe -r none
try modprobe -a test_klp_livepatch test_klp_callbacks_mod
settle
try lsmod
try rmmod test_klp_callbacks_mod test_klp_livepatch none
try put 0 $klp/test_klp_livepatch/enabled
settle
try rmmod test-klp-livepatch
try rmmod "$modules/test_klp_livepatch.ko"
try modprobe test_klp_callbacks_busy block_transition=Y
try rmmod test_klp_callbacks_busy
try insmod "$modules/livepatch-sample.ko" ''
settle
try rmmod --verbose livepatch_sample
off livepatch_sample
for size in 5000 4090; do
	try insmod "$modules/test_klp_callbacks_mod.ko" "$(printf 'x%.0s' $(seq $size))=1" | sed 's/xxx*/xx/'
	try rmmod test_klp_callbacks_mod
done
dmesg --raw | awk '{ sub(/\[ *[0-9.]+\] /, "") } length > 200 { print length }'
log | cut -c1-120
