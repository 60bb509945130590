/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The scanf family: lib/vsprintf.c. */

#include <linux/bitmap.h>
#include <linux/ctype.h>
#include <linux/kernel.h>
#include <linux/string.h>

/* Read a number of at most width characters. If there is none, *end is set to text. */
static unsigned long long scan_number(const char *text, const char **end, unsigned int base,
				      bool is_signed, int width)
{
	char buffer[80];
	size_t n = width > 0 ? min_t(size_t, width, sizeof(buffer) - 1) : sizeof(buffer) - 1;
	char *stop;
	const char *digits;
	unsigned long long value;

	n = strnlen(text, n);
	memcpy(buffer, text, n);
	buffer[n] = '\0';
	digits = is_signed && *buffer == '-' ? buffer + 1 : buffer;
	value = simple_strtoull(digits, &stop, base);
	*end = stop == digits ? text : text + (stop - buffer);
	return digits == buffer ? value : -value;
}

static void store_number(va_list *args, char qualifier, unsigned long long value)
{
	switch (qualifier) {
	case 'H': *va_arg(*args, char *) = value; break;
	case 'h': *va_arg(*args, short *) = value; break;
	case 'l': *va_arg(*args, long *) = value; break;
	case 'L': *va_arg(*args, long long *) = value; break;
	case 'z': *va_arg(*args, size_t *) = value; break;
	default: *va_arg(*args, int *) = value; break;
	}
}

/* Read the set of a %[...]. Return the format behind the ']', or NULL if there is none. */
static const char *scan_set(const char *fmt, bool set[256])
{
	bool inverted = *fmt == '^';

	if (inverted)
		fmt++;
	memset(set, inverted, 256);
	do {
		if (!*fmt)
			return NULL;
		set[(unsigned char)*fmt++] = !inverted;
	} while (*fmt != ']');
	set[0] = false;
	return fmt + 1;
}

int vsscanf(const char *buf, const char *fmt, va_list arguments)
{
	const char *at = buf;
	va_list args;
	int converted = 0;

	va_copy(args, arguments);
	while (*fmt) {
		bool suppress = false, is_signed = false, set[256];
		int width = -1;
		unsigned int base = 10;
		char qualifier = 0;

		if (isspace(*fmt)) {
			fmt = skip_spaces(++fmt);
			at = skip_spaces(at);
		}
		if (*fmt != '%') {
			if (!*fmt || *fmt++ != *at++)
				break;
			continue;
		}
		fmt++;
		if (*fmt == '*') {
			suppress = true;
			fmt++;
		}
		if (isdigit(*fmt)) {
			width = simple_strtoul(fmt, (char **)&fmt, 10);
			if (width <= 0)
				break;
		}
		if (*fmt == 'h' || *fmt == 'l' || *fmt == 'L' || *fmt == 'z') {
			qualifier = *fmt++;
			if (*fmt == qualifier && (qualifier == 'h' || qualifier == 'l')) {
				qualifier = qualifier == 'h' ? 'H' : 'L';
				fmt++;
			}
		}
		if (!*fmt)
			break;
		if (*fmt == 'n') {
			if (!suppress)
				store_number(&args, qualifier, at - buf);
			fmt++;
			continue;
		}
		if (!*at)
			break;

		switch (*fmt++) {
		case 'c': {
			char *s = suppress ? NULL : va_arg(args, char *);

			for (int n = width < 0 ? 1 : width; n && *at; n--, at++)
				if (s)
					*s++ = *at;
			converted += !suppress;
			continue;
		}
		case 's': {
			char *s = suppress ? NULL : va_arg(args, char *);

			at = skip_spaces(at);
			for (; *at && !isspace(*at) && width; at++, width--)
				if (s)
					*s++ = *at;
			if (s)
				*s = '\0';
			converted += !suppress;
			continue;
		}
		case '[': {
			char *s;

			/* Unlike in C, the field must have a width, and %* is not allowed. */
			if (width < 0 || suppress)
				goto out;
			fmt = scan_set(fmt, set);
			if (!fmt || !set[(unsigned char)*at])
				goto out;
			s = va_arg(args, char *);
			for (; set[(unsigned char)*at] && width; at++, width--)
				*s++ = *at;
			*s = '\0';
			converted++;
			continue;
		}
		case 'o': base = 8; break;
		case 'x':
		case 'X': base = 16; break;
		case 'i': base = 0; is_signed = true; break;
		case 'd': is_signed = true; break;
		case 'u': break;
		case '%':
			if (*at++ != '%')
				goto out;
			continue;
		default:
			goto out;
		}

		const char *end;
		unsigned long long value;

		at = skip_spaces(at);
		value = scan_number(at, &end, base, is_signed, width);
		if (end == at)
			break;
		at = end;
		if (!suppress) {
			store_number(&args, qualifier, value);
			converted++;
		}
	}
out:
	va_end(args);
	return converted;
}
EXPORT_SYMBOL(vsscanf);

int sscanf(const char *buf, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsscanf(buf, fmt, args);
	va_end(args);
	return n;
}
EXPORT_SYMBOL(sscanf);
