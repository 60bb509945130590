/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_COMPILER_TYPES_H
#define _LINUX_COMPILER_TYPES_H

/* Included before the first line of every translation unit (gcc -include). */
#ifndef __ASSEMBLY__

#define __user
#define __kernel
#define __iomem
#define __percpu
#define __rcu
#define __force
#define __bitwise
#define __private
#define __nocast
#define __safe
#define __must_hold(x)
#define __acquires(x)
#define __releases(x)
#define __acquire(x) ((void)0)
#define __release(x) ((void)0)
#define __chk_user_ptr(x) ((void)0)

#define notrace __attribute__((__no_instrument_function__))
#define __always_unused __attribute__((__unused__))
#define __maybe_unused __attribute__((__unused__))
#define __used __attribute__((__used__))
#define __must_check __attribute__((__warn_unused_result__))
#define __packed __attribute__((__packed__))
#define __aligned(x) __attribute__((__aligned__(x)))
#define __section(name) __attribute__((__section__(name)))
#define __weak __attribute__((__weak__))
#define __alias(symbol) __attribute__((__alias__(#symbol)))
#define __copy(symbol) __attribute__((__copy__(symbol)))
#define __visible __attribute__((__externally_visible__))
#define __cold __attribute__((__cold__))
#define __pure __attribute__((__pure__))
#define __attribute_const__ __attribute__((__const__))
#define __malloc __attribute__((__malloc__))
#define __alloc_size(...) __attribute__((__alloc_size__(__VA_ARGS__)))
#define __assume_aligned(...) __attribute__((__assume_aligned__(__VA_ARGS__)))
#define __printf(fmt, args) __attribute__((__format__(printf, fmt, args)))
#define __scanf(fmt, args) __attribute__((__format__(scanf, fmt, args)))
#define __noreturn __attribute__((__noreturn__))
#define __noclone __attribute__((__noclone__))
#define __flatten __attribute__((__flatten__))
#define __gnu_inline __attribute__((__gnu_inline__))
#define __mode(x) __attribute__((__mode__(x)))
#define __nonstring __attribute__((__nonstring__))
#define __deprecated
#define __latent_entropy
#define __randomize_layout
#define __designated_init
#define __no_randomize_layout
#define __noinitretpoline
#define fallthrough __attribute__((__fallthrough__))

#define noinline __attribute__((__noinline__))
#define noinline_for_stack noinline
/* An inline function that gcc does not inline has no ftrace site. */
#define inline inline __gnu_inline __maybe_unused notrace
#define __inline__ inline
#define __always_inline inline __attribute__((__always_inline__))
#define noinstr noinline notrace __section(".noinstr.text")
/* asm __inline counts as one instruction when gcc estimates the size of code. */
#define asm_inline asm __inline

#define ___PASTE(a, b) a##b
#define __PASTE(a, b) ___PASTE(a, b)
#define __same_type(a, b) __builtin_types_compatible_p(typeof(a), typeof(b))
#define __native_word(t)                                                          \
	(sizeof(t) == sizeof(char) || sizeof(t) == sizeof(short) ||               \
	 sizeof(t) == sizeof(int) || sizeof(t) == sizeof(long))

#define __compiletime_assert(condition, msg, prefix, suffix)                      \
	do {                                                                      \
		extern void prefix##suffix(void) __attribute__((__error__(msg))); \
		if (!(condition))                                                 \
			prefix##suffix();                                         \
	} while (0)
#define _compiletime_assert(condition, msg, prefix, suffix) \
	__compiletime_assert(condition, msg, prefix, suffix)
#define compiletime_assert(condition, msg) \
	_compiletime_assert(condition, msg, __compiletime_assert_, __COUNTER__)

#endif

#endif
