/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The printf family, with the formats of lib/vsprintf.c. */

#include <linux/bug.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/string.h>
#include <asm/page.h>

#include "printf.h"
#include "../bug_at.h"

#define FIELD_WIDTH_MAX ((1 << 23) - 1)
#define PRECISION_MAX ((1 << 15) - 1)

void emit(struct out *out, char c)
{
	if (out->at < out->end)
		*out->at = c;
	out->at++;
}

void emit_pad(struct out *out, char c, int n)
{
	while (n-- > 0)
		emit(out, c);
}

void emit_string(struct out *out, const char *s, struct spec spec)
{
	size_t len = strnlen(s, spec.precision < 0 ? INT_MAX : spec.precision);
	int pad = spec.width > (int)len ? spec.width - (int)len : 0;

	if (!(spec.flags & LEFT))
		emit_pad(out, ' ', pad);
	for (size_t i = 0; i < len; i++)
		emit(out, s[i]);
	if (spec.flags & LEFT)
		emit_pad(out, ' ', pad);
}

/* Print "(null)" or "(efault)" for an invalid address. Return whether it is invalid. */
bool emit_bad_pointer(struct out *out, const void *ptr, struct spec spec)
{
	const char *what;

	if (!ptr)
		what = "(null)";
	else if ((unsigned long)ptr < PAGE_SIZE || IS_ERR_VALUE(ptr))
		what = "(efault)";
	else
		return false;
	spec.precision = spec.precision < 0 ? (int)strlen(what) : spec.precision;
	emit_string(out, what, spec);
	return true;
}

static int digits_of(char *reversed, unsigned long long num, unsigned int base, bool small)
{
	int n = 0;

	do {
		unsigned int digit = num % base;

		reversed[n++] = digit < 10 ? '0' + digit : (small ? 'a' : 'A') + digit - 10;
		num /= base;
	} while (num);
	return n;
}

/*
 * The order is spaces, sign, prefix, zeros, digits, spaces. Unlike in C, a precision does not
 * cancel the 0 flag, and the hexadecimal number 0 has a prefix.
 */
void emit_number(struct out *out, unsigned long long num, struct spec spec)
{
	char reversed[3 * sizeof(num)];
	char sign = 0;
	int n, width = spec.width, precision = spec.precision;
	bool hex = (spec.flags & SPECIAL) && spec.base == 16;
	bool octal = (spec.flags & SPECIAL) && spec.base == 8 && num;

	if (spec.flags & LEFT)
		spec.flags &= ~ZEROPAD;
	if (spec.flags & SIGN) {
		if ((long long)num < 0) {
			sign = '-';
			num = -num;
		} else if (spec.flags & PLUS) {
			sign = '+';
		} else if (spec.flags & SPACE) {
			sign = ' ';
		}
	}
	n = digits_of(reversed, num, spec.base, spec.flags & SMALL);
	if (precision < n)
		precision = n;
	width -= precision + (sign != 0) + 2 * hex + octal;

	if (!(spec.flags & (ZEROPAD | LEFT))) {
		emit_pad(out, ' ', width);
		width = 0;
	}
	if (sign)
		emit(out, sign);
	if (hex || octal)
		emit(out, '0');
	if (hex)
		emit(out, spec.flags & SMALL ? 'x' : 'X');
	if (!(spec.flags & LEFT)) {
		emit_pad(out, '0', width);
		width = 0;
	}
	emit_pad(out, '0', precision - n);
	while (n)
		emit(out, reversed[--n]);
	emit_pad(out, ' ', width);
}

static void emit_char(struct out *out, char c, struct spec spec)
{
	if (!(spec.flags & LEFT))
		emit_pad(out, ' ', spec.width - 1);
	emit(out, c);
	if (spec.flags & LEFT)
		emit_pad(out, ' ', spec.width - 1);
}

static int number_at(const char **fmt)
{
	int n = 0;

	while ('0' <= **fmt && **fmt <= '9')
		n = n * 10 + *(*fmt)++ - '0';
	return n;
}

static const char *parse_flags(const char *fmt, struct spec *spec)
{
	for (;; fmt++) {
		switch (*fmt) {
		case '-': spec->flags |= LEFT; break;
		case '+': spec->flags |= PLUS; break;
		case ' ': spec->flags |= SPACE; break;
		case '#': spec->flags |= SPECIAL; break;
		case '0': spec->flags |= ZEROPAD; break;
		default: return fmt;
		}
	}
}

static void set_width(struct spec *spec, int width)
{
	if (width < 0) {
		spec->flags |= LEFT;
		width = -width;
	}
	if (WARN_ONCE_AT(width > FIELD_WIDTH_MAX, "lib/vsprintf.c", 2693,
			 "field width %d too large", width))
		width = FIELD_WIDTH_MAX;
	spec->width = width;
}

static void set_precision(struct spec *spec, int precision)
{
	if (WARN_ONCE_AT(precision > PRECISION_MAX, "lib/vsprintf.c", 2702,
			 "precision %d too large", precision))
		precision = PRECISION_MAX;
	spec->precision = precision < 0 ? 0 : precision;
}

/* Set *qualifier to one of h, l, z, t; to H for hh, to L for ll and L, to 0 for none. */
static const char *parse_qualifier(const char *fmt, char *qualifier)
{
	*qualifier = 0;
	if (*fmt == 'h' || *fmt == 'l' || *fmt == 'L' || *fmt == 'z' || *fmt == 't') {
		*qualifier = *fmt++;
		if (*fmt == *qualifier && (*fmt == 'h' || *fmt == 'l')) {
			*qualifier = *fmt == 'h' ? 'H' : 'L';
			fmt++;
		}
	}
	return fmt;
}

static unsigned long long number_argument(struct arguments *args, char qualifier, bool is_signed)
{
	switch (qualifier) {
	case 'L': return va_arg(args->list, long long);
	case 'l': return va_arg(args->list, long);
	case 'z': return va_arg(args->list, size_t);
	case 't': return va_arg(args->list, ptrdiff_t);
	}
	int value = va_arg(args->list, int);

	switch (qualifier) {
	case 'H': return is_signed ? (signed char)value : (unsigned char)value;
	case 'h': return is_signed ? (short)value : (unsigned short)value;
	}
	/* Not a conditional expression, whose type would be unsigned. */
	if (is_signed)
		return value;
	return (unsigned int)value;
}

/*
 * Print the conversion behind a %. Return the rest of the format, or NULL for an unknown
 * conversion, as the type of its argument is unknown.
 */
static const char *convert(struct out *out, const char *fmt, struct arguments *args)
{
	struct spec spec = { .width = -1, .precision = -1, .base = 10 };
	char qualifier;

	fmt = parse_flags(fmt, &spec);
	if (*fmt == '*') {
		fmt++;
		set_width(&spec, va_arg(args->list, int));
	} else if ('0' <= *fmt && *fmt <= '9') {
		set_width(&spec, number_at(&fmt));
	}
	if (*fmt == '.') {
		fmt++;
		if (*fmt == '*') {
			fmt++;
			set_precision(&spec, va_arg(args->list, int));
		} else {
			set_precision(&spec, number_at(&fmt));
		}
	}
	fmt = parse_qualifier(fmt, &qualifier);

	char conversion = *fmt++;

	switch (conversion) {
	case '%':
		emit(out, '%');
		return fmt;
	case 'c':
		emit_char(out, (unsigned char)va_arg(args->list, int), spec);
		return fmt;
	case 's': {
		const char *s = va_arg(args->list, const char *);

		if (!emit_bad_pointer(out, s, spec))
			emit_string(out, s, spec);
		return fmt;
	}
	case 'p':
		emit_pointer(out, fmt, va_arg(args->list, void *), spec);
		while (isalnum(*fmt))
			fmt++;
		return fmt;
	case 'd':
	case 'i':
		spec.flags |= SIGN;
		break;
	case 'u':
		break;
	case 'o':
		spec.base = 8;
		break;
	case 'x':
		spec.flags |= SMALL;
		spec.base = 16;
		break;
	case 'X':
		spec.base = 16;
		break;
	default:
		WARN_ONCE_AT(1, "lib/vsprintf.c", 2661,
			     "Please remove unsupported %%%c in format string\n", conversion);
		return NULL;
	}
	emit_number(out, number_argument(args, qualifier, spec.flags & SIGN), spec);
	return fmt;
}

void emit_format(struct out *out, const char *fmt, struct arguments *args)
{
	while (fmt && *fmt) {
		if (*fmt == '%')
			fmt = convert(out, fmt + 1, args);
		else
			emit(out, *fmt++);
	}
}

/* Return the length of the whole text, even if it does not fit. */
int vsnprintf(char *buf, size_t size, const char *fmt, va_list args)
{
	struct out out = { buf, buf + size };
	struct arguments arguments;

	if (WARN_ON_ONCE_AT("lib/vsprintf.c", 2743, size > INT_MAX))
		return 0;
	if (out.end < buf)
		out.end = (char *)-1UL;
	va_copy(arguments.list, args);
	emit_format(&out, fmt, &arguments);
	va_end(arguments.list);
	if (size)
		*(out.at < out.end ? out.at : out.end - 1) = '\0';
	return out.at - buf;
}
EXPORT_SYMBOL(vsnprintf);

/* Return the length of the text in the buffer. */
int vscnprintf(char *buf, size_t size, const char *fmt, va_list args)
{
	int n;

	if (!size)
		return 0;
	n = vsnprintf(buf, size, fmt, args);
	return n < size ? n : size - 1;
}
EXPORT_SYMBOL(vscnprintf);

int snprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(buf, size, fmt, args);
	va_end(args);
	return n;
}
EXPORT_SYMBOL(snprintf);

int scnprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vscnprintf(buf, size, fmt, args);
	va_end(args);
	return n;
}
EXPORT_SYMBOL(scnprintf);

int vsprintf(char *buf, const char *fmt, va_list args)
{
	return vsnprintf(buf, INT_MAX, fmt, args);
}
EXPORT_SYMBOL(vsprintf);

int sprintf(char *buf, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(buf, INT_MAX, fmt, args);
	va_end(args);
	return n;
}
EXPORT_SYMBOL(sprintf);

/* Write num in decimal, padded to width, without a NUL. Return 0 if it does not fit. */
int num_to_str(char *buf, int size, unsigned long long num, unsigned int width)
{
	char reversed[3 * sizeof(num)];
	int n = digits_of(reversed, num, 10, true), pad = width > n ? width - n : 0;

	if (n > size || width > size)
		return 0;
	memset(buf, ' ', pad);
	for (int i = 0; i < n; i++)
		buf[pad + i] = reversed[n - 1 - i];
	return pad + n;
}
