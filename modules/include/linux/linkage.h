/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_LINKAGE_H
#define _LINUX_LINKAGE_H

#include <linux/compiler_types.h>
#include <linux/stringify.h>
#include <linux/export.h>

#define CPP_ASMLINKAGE
#define asmlinkage CPP_ASMLINKAGE
#define __page_aligned_data __section(".data..page_aligned") __aligned(4096)
#define __page_aligned_bss __section(".bss..page_aligned") __aligned(4096)

#ifdef __ASSEMBLY__

#define __ALIGN .balign 16, 0x90
#define SYM_L_GLOBAL(name) .globl name
#define SYM_L_LOCAL(name)
#define SYM_ENTRY(name, linkage, align...) \
	linkage(name) ; align ; name:
#define SYM_END(name, kind) \
	.type name kind ; .size name, . - name
#define SYM_CODE_START(name) SYM_ENTRY(name, SYM_L_GLOBAL, __ALIGN)
#define SYM_CODE_START_LOCAL(name) SYM_ENTRY(name, SYM_L_LOCAL, __ALIGN)
#define SYM_CODE_END(name) SYM_END(name, @function)
#define SYM_FUNC_START(name) SYM_ENTRY(name, SYM_L_GLOBAL, __ALIGN)
#define SYM_FUNC_START_LOCAL(name) SYM_ENTRY(name, SYM_L_LOCAL, __ALIGN)
#define SYM_FUNC_END(name) SYM_END(name, @function)
#define SYM_INNER_LABEL(name, linkage) \
	.type name @notype ; linkage(name) ; name:

#endif

#endif
