/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The return address of functions that Python calls. At boot, a trap is written here. */

#include <linux/linkage.h>

	.section .services.text, "ax"

	.balign	16, 0x90
	.globl	guest_return
	.type	guest_return, @function
guest_return:
	ud2
	.fill	14, 1, 0x90
	.size	guest_return, . - guest_return

	.section .note.GNU-stack, "", @progbits
