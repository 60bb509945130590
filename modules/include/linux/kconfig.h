/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_KCONFIG_H
#define _LINUX_KCONFIG_H

/*
 * Included before the first line of every translation unit (gcc -include).
 *
 * A CONFIG_ symbol is defined as 1 or not at all. The preprocessor distinguishes the two inside an
 * expression: a defined one that is pasted onto __ARG_PLACEHOLDER_ becomes "0,", which shifts the
 * arguments by one.
 */
#include <generated/autoconf.h>

#define __ARG_PLACEHOLDER_1 0,
#define __take_second_arg(ignored, value, ...) value
#define ____is_defined(shift_or_junk) __take_second_arg(shift_or_junk 1, 0)
#define ___is_defined(value) ____is_defined(__ARG_PLACEHOLDER_##value)
#define __is_defined(x) ___is_defined(x)

#define IS_BUILTIN(option) __is_defined(option)
#define IS_MODULE(option) __is_defined(option##_MODULE)
#define IS_REACHABLE(option) (IS_BUILTIN(option) || (IS_MODULE(option) && __is_defined(MODULE)))
#define IS_ENABLED(option) (IS_BUILTIN(option) || IS_MODULE(option))

#endif
