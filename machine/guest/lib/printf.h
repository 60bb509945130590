/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GUEST_PRINTF_H
#define GUEST_PRINTF_H

#include <linux/ctype.h>
#include <linux/stdarg.h>
#include <linux/types.h>

/* Where the text goes. It is counted beyond the end, but not written there. */
struct out {
	char *at;
	char *end;
};

/* A va_list that several functions take from. */
struct arguments {
	va_list list;
};

enum {
	LEFT = 1,
	PLUS = 2,
	SPACE = 4,
	SPECIAL = 8,
	ZEROPAD = 16,
	SIGN = 32,
	SMALL = 64,
};

/* What stands between the % and the conversion; -1 for a width or precision that is not given. */
struct spec {
	unsigned int flags;
	int width;
	int precision;
	unsigned int base;
};

extern void emit(struct out *out, char c);
extern void emit_pad(struct out *out, char c, int n);
extern void emit_string(struct out *out, const char *s, struct spec spec);
extern void emit_gfp_flags(struct out *out, gfp_t gfp);
extern void emit_number(struct out *out, unsigned long long num, struct spec spec);
extern bool emit_bad_pointer(struct out *out, const void *ptr, struct spec spec);
extern void emit_pointer(struct out *out, const char *ext, void *ptr, struct spec spec);
extern void emit_format(struct out *out, const char *fmt, struct arguments *args);

extern const char *errname(int err);
extern unsigned long ptr_to_id(const void *ptr);

#endif
