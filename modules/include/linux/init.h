/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_INIT_H
#define _LINUX_INIT_H

#include <linux/compiler.h>
#include <linux/stringify.h>
#include <linux/types.h>

#define __init __section(".init.text") __cold
#define __initdata __section(".init.data")
#define __initconst __section(".init.rodata")
#define __exitdata __section(".exit.data")
#ifdef MODULE
#define __exit __section(".exit.text") __cold notrace
#else
#define __exit __section(".exit.text") __used __cold notrace
#endif
#define __ref __section(".ref.text") noinline
#define __refdata __section(".ref.data")

#ifndef __ASSEMBLY__

typedef int (*initcall_t)(void);
typedef void (*exitcall_t)(void);

extern char *saved_command_line;

#ifndef MODULE

/* A pointer in .initcall<level>.init, which the linker script sorts by level. */
#define __define_initcall(fn, level) \
	static initcall_t __initcall_##fn##level __used __section(".initcall" #level ".init") = fn

#define early_initcall(fn) __define_initcall(fn, early)
#define pure_initcall(fn) __define_initcall(fn, 0)
#define core_initcall(fn) __define_initcall(fn, 1)
#define postcore_initcall(fn) __define_initcall(fn, 2)
#define arch_initcall(fn) __define_initcall(fn, 3)
#define subsys_initcall(fn) __define_initcall(fn, 4)
#define fs_initcall(fn) __define_initcall(fn, 5)
#define device_initcall(fn) __define_initcall(fn, 6)
#define late_initcall(fn) __define_initcall(fn, 7)
#define __initcall(fn) device_initcall(fn)

#endif
#endif

#endif
