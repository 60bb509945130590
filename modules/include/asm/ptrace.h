/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_PTRACE_H
#define _ASM_PTRACE_H

#ifdef __ASSEMBLY__

/* Offsets into struct pt_regs. */
#define R15 0x00
#define R14 0x08
#define R13 0x10
#define R12 0x18
#define RBP 0x20
#define RBX 0x28
#define R11 0x30
#define R10 0x38
#define R9 0x40
#define R8 0x48
#define RAX 0x50
#define RCX 0x58
#define RDX 0x60
#define RSI 0x68
#define RDI 0x70
#define ORIG_RAX 0x78
#define RIP 0x80
#define CS 0x88
#define EFLAGS 0x90
#define RSP 0x98
#define SS 0xa0
#define FRAME_SIZE 0xa8

#else

struct pt_regs {
	unsigned long r15;
	unsigned long r14;
	unsigned long r13;
	unsigned long r12;
	unsigned long bp;
	unsigned long bx;
	unsigned long r11;
	unsigned long r10;
	unsigned long r9;
	unsigned long r8;
	unsigned long ax;
	unsigned long cx;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
	unsigned long ip;
	unsigned long cs;
	unsigned long flags;
	unsigned long sp;
	unsigned long ss;
};

static inline unsigned long instruction_pointer(struct pt_regs *regs)
{
	return regs->ip;
}

static inline void instruction_pointer_set(struct pt_regs *regs, unsigned long val)
{
	regs->ip = val;
}

static inline unsigned long kernel_stack_pointer(struct pt_regs *regs)
{
	return regs->sp;
}

static inline unsigned long frame_pointer(struct pt_regs *regs)
{
	return regs->bp;
}

static inline unsigned long user_stack_pointer(struct pt_regs *regs)
{
	return regs->sp;
}

static inline unsigned long regs_return_value(struct pt_regs *regs)
{
	return regs->ax;
}

static inline void regs_set_return_value(struct pt_regs *regs, unsigned long rc)
{
	regs->ax = rc;
}

static inline unsigned long regs_get_kernel_argument(struct pt_regs *regs, unsigned int n)
{
	switch (n) {
	case 0: return regs->di;
	case 1: return regs->si;
	case 2: return regs->dx;
	case 3: return regs->cx;
	case 4: return regs->r8;
	case 5: return regs->r9;
	}
	return 0;
}

#endif

#endif
