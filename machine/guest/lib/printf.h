/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GUEST_PRINTF_H
#define GUEST_PRINTF_H

#include <linux/ctype.h>
#include <linux/stdarg.h>
#include <linux/types.h>

/* The output buffer. Text beyond its end is counted, but not written. */
struct out {
	char *at;
	char *end;
};

/* A va_list that is shared by several functions. */
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

/* The text between the % and the conversion. Width and precision are -1 if they are missing. */
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
