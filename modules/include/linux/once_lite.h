/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_ONCE_LITE_H
#define _LINUX_ONCE_LITE_H

#include <linux/compiler.h>

#define DO_ONCE_LITE_IF(condition, func, ...)                      \
	({                                                         \
		static bool __section(".data.once") __already_done; \
		bool __ret_cond = !!(condition);                   \
		if (unlikely(__ret_cond && !__already_done)) {     \
			__already_done = true;                     \
			func(__VA_ARGS__);                         \
		}                                                  \
		unlikely(__ret_cond);                              \
	})
#define DO_ONCE_LITE(func, ...) DO_ONCE_LITE_IF(true, func, ##__VA_ARGS__)

#endif
