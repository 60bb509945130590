# SPDX-License-Identifier: GPL-2.0-or-later

directory=/sys/module/misbehaves/parameters
for words in '' 'number=7 flag word=a' 'word="two words" flag=0' 'small=255 little=-32768 large=18446744073709551615' \
	small=256 small=-1 little=32768 large=18446744073709551616 large=-1 inverted=1 inverted list=4,5 list=4,5,6,7 \
	list= list=4,x list=-1,+2,0x3 letters=1234567 letters=12345678 letters 'flag=2' word 'number' 'number=1 number=2' \
	'NUMBER=1' 'num-ber=1' '-- number=9' 'number=3 -- number=9' ' number=4 ' 'word="unclosed number=1' '"number=8"' \
	'word=$HOME' 'word=a=b' '=' '=5' '" "'; do
	try load misbehaves "$words"
	[[ -d $directory ]] && grep -H . $directory/* && try rmmod misbehaves
	log
done
try load misbehaves
tree $directory
for file in number flag word small little large inverted list letters; do
	for text in '' 1 0 -1 Y n '1\n' 'x' '1 2' '1,2,3' '1,2,3,4' 12345678 123456789 99999 300; do
		try put "$text" $directory/$file
		cat $directory/$file
	done
done
try rmmod misbehaves
log
