# SPDX-License-Identifier: GPL-2.0-or-later

for what in 0 1 -1 -22 -12 -133 5000 -5000 levels; do
	try load misbehaves what=$what
	try rmmod misbehaves
	log | sed "s,+0x0/0x[0-9a-f]*,+0x0/N,g"
done
