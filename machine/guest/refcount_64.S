/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The return address of counted calls. It continues at their original return address. */

#include <linux/linkage.h>
#include <generated/autoconf.h>

#ifdef CONFIG_LIVEPATCH

	.text

SYM_FUNC_START(klp_refcount_return)
	subq	$8, %rsp	/* the stack slot of the return address, which is restored below */
	pushq	%rbp
	movq	%rsp, %rbp
	pushq	%rax
	pushq	%rdx
	leaq	8(%rbp), %rdi
	call	klp_refcount_exit
	movq	%rax, 8(%rbp)
	popq	%rdx
	popq	%rax
	popq	%rbp
	ret
SYM_FUNC_END(klp_refcount_return)

#endif /* CONFIG_LIVEPATCH */

	.section .note.GNU-stack, "", @progbits
