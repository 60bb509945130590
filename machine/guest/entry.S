/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The return address of functions that Python calls. At boot, a trap is written here. And the entry of
 * system calls, which is never executed: reports name it as the outermost frames of a process.
 */

#include <linux/linkage.h>

	.section .services.text, "ax"

	.balign	16, 0x90
	.globl	guest_return
	.type	guest_return, @function
guest_return:
	ud2
	.fill	14, 1, 0x90
	.size	guest_return, . - guest_return

	.section .noinstr.text, "ax"

	.globl	entry_SYSCALL_64
	.type	entry_SYSCALL_64, @function
entry_SYSCALL_64:
	swapgs
	.size	entry_SYSCALL_64, . - entry_SYSCALL_64

	.globl	entry_SYSCALL_64_after_hwframe
	.type	entry_SYSCALL_64_after_hwframe, @function
entry_SYSCALL_64_after_hwframe:
	call	do_syscall_64
	ud2
	.size	entry_SYSCALL_64_after_hwframe, . - entry_SYSCALL_64_after_hwframe

	.globl	do_syscall_64
	.type	do_syscall_64, @function
do_syscall_64:
	call	*%rax
	ret
	.size	do_syscall_64, . - do_syscall_64

	.section .note.GNU-stack, "", @progbits
