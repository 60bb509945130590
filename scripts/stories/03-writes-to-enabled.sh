# SPDX-License-Identifier: GPL-2.0-or-later

for text in '' '\n' '1' '1\n' '2' '-1' ' 1' '1 ' ' 0' '1x' y yes on ON o ox t true abc '\0' '\001' 10 '\n0' '+0' -0 \
	0 '0\n' 00 01 0x1 0x n N no off OFF of f '0 1'; do
	[[ -d $klp/livepatch_sample ]] || { try load livepatch-sample; settle; }
	try put "$text" $klp/livepatch_sample/enabled
	settle
	[[ -d $klp/livepatch_sample ]] && cat $klp/livepatch_sample/enabled || try rmmod livepatch_sample
done
[[ -d $klp/livepatch_sample ]] && off livepatch_sample
log
