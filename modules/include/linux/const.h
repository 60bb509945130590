/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_CONST_H
#define _LINUX_CONST_H

#ifdef __ASSEMBLY__
#define _AC(x, y) x
#define _AT(t, x) x
#else
#define ___AC(x, y) (x##y)
#define _AC(x, y) ___AC(x, y)
#define _AT(t, x) ((t)(x))
#endif

#define _UL(x) _AC(x, UL)
#define _ULL(x) _AC(x, ULL)
#define UL(x) _UL(x)
#define ULL(x) _ULL(x)
#define _BITUL(x) (_UL(1) << (x))
#define _BITULL(x) (_ULL(1) << (x))

/* (void *)((x) * 0) is a null pointer constant only if x is an integer constant expression. */
#define __is_constexpr(x) \
	(sizeof(int) == sizeof(*(8 ? ((void *)((long)(x) * 0l)) : (int *)8)))

#endif
