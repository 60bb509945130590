# SPDX-License-Identifier: GPL-2.0-or-later

sample=$modules/livepatch-sample.ko
: >empty.ko
echo "not a module" >text.ko
head -c 30 "$sample" >short.ko
head -c 64 "$sample" >header.ko
head -c 4000 "$sample" >cut.ko
head -c -100 "$sample" >end.ko
head -c 100000 /dev/zero >zero.ko
edit() { # OFFSET BYTE: change a byte of the sample, in octal
	cp "$sample" edited.ko
	printf "\\$2" | dd of=edited.ko bs=1 seek="$1" conv=notrunc status=none
	try insmod edited.ko
	[[ ! -d $klp/livepatch_sample ]] || { settle; off livepatch_sample; }
}
for file in empty text short header cut end zero none; do try insmod $file.ko; done
try insmod .
edit 0 0
edit 4 1  # a class of 32 bits
edit 5 2  # the other byte order
edit 16 2 # an executable
edit 18 3 # an i386
edit 18 267
edit 52 100 # e_ehsize
edit 58 77 # e_shentsize
edit 60 0  # e_shnum
edit 60 1
edit 62 0  # e_shstrndx
edit 62 377
log
