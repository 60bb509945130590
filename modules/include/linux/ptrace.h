/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_PTRACE_H
#define _LINUX_PTRACE_H

#include <linux/compiler.h>
#include <linux/sched.h>
#include <asm/ptrace.h>

#endif
