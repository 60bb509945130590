/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The code between the call at the start of a traced function and the handler:
 * arch/x86/kernel/ftrace_64.S.
 *
 * An ops that is the only one at its sites gets a trampoline: a copy of ftrace_caller up to
 * ftrace_caller_end (or of ftrace_regs_caller), then a ret, then the address of the ops. Two
 * instructions differ in the copy: the one at _op_ptr (7 bytes) loads that address, and the call
 * is one of the ops' function. So no other instruction here may be relative to its address.
 */

#include <linux/linkage.h>
#include <asm/export.h>
#include <asm/ptrace.h>

#define CALL_SIZE 5
#define KERNEL_CS 0x10
#define KERNEL_DS 0x18

/*
 * The data on the stack above struct pt_regs: two frames, as if both functions had pushed %rbp, so
 * that a stack trace through here has the traced function and its caller. Above them is the real
 * %rbp of the caller.
 */
#define FRAMES (5 * 8)
#define TRACED_RBP (FRAME_SIZE + FRAMES - 8)
#define TRACED_RIP (FRAME_SIZE + FRAMES)

/*
 * On entry the stack has \pushed bytes, then the return address into the traced function, then the
 * return address into its caller.
 */
.macro save_scratch pushed
	pushq	%rbp
	pushq	\pushed + 2 * 8(%rsp)
	pushq	%rbp
	movq	%rsp, %rbp
	pushq	\pushed + 3 * 8(%rsp)
	pushq	%rbp
	movq	%rsp, %rbp

	subq	$FRAME_SIZE, %rsp
	movq	%rax, RAX(%rsp)
	movq	%rcx, RCX(%rsp)
	movq	%rdx, RDX(%rsp)
	movq	%rsi, RSI(%rsp)
	movq	%rdi, RDI(%rsp)
	movq	%r8, R8(%rsp)
	movq	%r9, R9(%rsp)
	movq	$0, ORIG_RAX(%rsp)
	movq	TRACED_RBP(%rsp), %rdx
	movq	%rdx, RBP(%rsp)

	/* The first two arguments: the site, and the return address into the caller. */
	movq	TRACED_RIP + \pushed(%rsp), %rdi
	movq	%rdi, RIP(%rsp)
	subq	$CALL_SIZE, %rdi
	movq	TRACED_RIP + 8 + \pushed(%rsp), %rsi
.endm

.macro restore_scratch
	movq	R9(%rsp), %r9
	movq	R8(%rsp), %r8
	movq	RDI(%rsp), %rdi
	movq	RSI(%rsp), %rsi
	movq	RDX(%rsp), %rdx
	movq	RCX(%rsp), %rcx
	movq	RAX(%rsp), %rax
	movq	RBP(%rsp), %rbp
	addq	$FRAME_SIZE + FRAMES, %rsp
.endm

/* Return to the address that the handler may have changed. */
.macro set_return_address pushed
	movq	RIP(%rsp), %rax
	movq	%rax, TRACED_RIP + \pushed(%rsp)
.endm

	.text

SYM_FUNC_START(__fentry__)
	ret
SYM_FUNC_END(__fentry__)
EXPORT_SYMBOL(__fentry__)

SYM_FUNC_START(ftrace_stub)
	ret
SYM_FUNC_END(ftrace_stub)

/* For handlers that use only arguments and the return address. CS is 0 to mark this. */
SYM_FUNC_START(ftrace_caller)
	save_scratch 0
	movq	$0, CS(%rsp)
	leaq	TRACED_RIP + 8(%rsp), %rcx
	movq	%rcx, RSP(%rsp)
SYM_INNER_LABEL(ftrace_caller_op_ptr, SYM_L_GLOBAL)
	movq	function_trace_op(%rip), %rdx
	leaq	(%rsp), %rcx
SYM_INNER_LABEL(ftrace_call, SYM_L_GLOBAL)
	call	ftrace_stub
	set_return_address 0
	restore_scratch
SYM_INNER_LABEL(ftrace_caller_end, SYM_L_GLOBAL)
	ret
SYM_FUNC_END(ftrace_caller)

/* For handlers that use and may change all registers. */
SYM_FUNC_START(ftrace_regs_caller)
	pushfq
	save_scratch 8
SYM_INNER_LABEL(ftrace_regs_caller_op_ptr, SYM_L_GLOBAL)
	movq	function_trace_op(%rip), %rdx
	movq	%r15, R15(%rsp)
	movq	%r14, R14(%rsp)
	movq	%r13, R13(%rsp)
	movq	%r12, R12(%rsp)
	movq	%r11, R11(%rsp)
	movq	%r10, R10(%rsp)
	movq	%rbx, RBX(%rsp)
	movq	$KERNEL_CS, CS(%rsp)
	movq	$KERNEL_DS, SS(%rsp)
	movq	TRACED_RIP(%rsp), %rcx
	movq	%rcx, EFLAGS(%rsp)
	leaq	TRACED_RIP + 8 + 8(%rsp), %rcx
	movq	%rcx, RSP(%rsp)
	leaq	(%rsp), %rcx
SYM_INNER_LABEL(ftrace_regs_call, SYM_L_GLOBAL)
	call	ftrace_stub
	movq	EFLAGS(%rsp), %rax
	movq	%rax, TRACED_RIP(%rsp)
	set_return_address 8
	movq	R15(%rsp), %r15
	movq	R14(%rsp), %r14
	movq	R13(%rsp), %r13
	movq	R12(%rsp), %r12
	movq	R11(%rsp), %r11
	movq	R10(%rsp), %r10
	movq	RBX(%rsp), %rbx
	restore_scratch
	popfq
SYM_INNER_LABEL(ftrace_regs_caller_end, SYM_L_GLOBAL)
	ret
SYM_FUNC_END(ftrace_regs_caller)

	.section .note.GNU-stack, "", @progbits
