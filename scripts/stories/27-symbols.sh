# SPDX-License-Identifier: GPL-2.0-or-later

try load livepatch-sample
settle
grep -h '\[livepatch_sample\]' /proc/kallsyms | sort -k3
off livepatch_sample
grep -h '\[livepatch_sample\]' /proc/kallsyms
log
