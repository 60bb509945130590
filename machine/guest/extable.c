/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests whether an address is in code: kernel/extable.c. */

#include <linux/kernel.h>
#include <linux/module.h>

extern const char _stext[], _einittext[];

int core_kernel_text(unsigned long addr)
{
	return addr >= (unsigned long)_stext && addr < (unsigned long)_einittext;
}

int __kernel_text_address(unsigned long addr)
{
	return core_kernel_text(addr) || is_module_text_address(addr);
}

int kernel_text_address(unsigned long addr)
{
	return __kernel_text_address(addr);
}

int func_ptr_is_kernel_text(void *ptr)
{
	return __kernel_text_address((unsigned long)ptr);
}
