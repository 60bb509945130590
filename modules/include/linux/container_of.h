/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_CONTAINER_OF_H
#define _LINUX_CONTAINER_OF_H

#include <linux/build_bug.h>
#include <linux/stddef.h>

#define typeof_member(T, m) typeof(((T *)0)->m)

#define container_of(ptr, type, member)                                              \
	({                                                                           \
		void *__member = (void *)(ptr);                                      \
		static_assert(__same_type(*(ptr), ((type *)0)->member) ||            \
			      __same_type(*(ptr), void),                             \
			      "container_of() of a pointer to another type");        \
		(type *)(__member - offsetof(type, member));                         \
	})

#endif
