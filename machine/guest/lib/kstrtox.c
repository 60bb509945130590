/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Conversions of text to numbers: lib/kstrtox.c, and the simple_ functions of lib/vsprintf.c. */

#include <linux/ctype.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/kstrtox.h>
#include <linux/uaccess.h>

#define OVERFLOW (1U << 31)

static const char *skip_prefix(const char *s, unsigned int *base)
{
	bool hex = s[0] == '0' && _tolower(s[1]) == 'x' && isxdigit(s[2]);

	if (*base == 0)
		*base = s[0] != '0' ? 10 : hex ? 16 : 8;
	if (*base == 16 && s[0] == '0' && _tolower(s[1]) == 'x')
		s += 2;
	return s;
}

/* Return the number of digits, with OVERFLOW set if the value does not fit into the result. */
static unsigned int parse_digits(const char *s, unsigned int base, unsigned long long *res,
				 size_t max)
{
	unsigned long long value = 0;
	unsigned int n = 0, overflow = 0;

	for (; n < max; n++) {
		unsigned int lower = _tolower(s[n]), digit;

		if ('0' <= s[n] && s[n] <= '9')
			digit = s[n] - '0';
		else if ('a' <= lower && lower <= 'f')
			digit = lower - 'a' + 10;
		else
			break;
		if (digit >= base)
			break;
		if (value > (ULLONG_MAX - digit) / base)
			overflow = OVERFLOW;
		value = value * base + digit;
	}
	*res = value;
	return n | overflow;
}

static int parse_unsigned(const char *s, unsigned int base, unsigned long long *res)
{
	unsigned long long value;
	unsigned int n;

	s = skip_prefix(s, &base);
	n = parse_digits(s, base, &value, INT_MAX);
	if (n & OVERFLOW)
		return -ERANGE;
	if (!n)
		return -EINVAL;
	s += n;
	if (*s == '\n')
		s++;
	if (*s)
		return -EINVAL;
	*res = value;
	return 0;
}

int kstrtoull(const char *s, unsigned int base, unsigned long long *res)
{
	return parse_unsigned(*s == '+' ? s + 1 : s, base, res);
}
EXPORT_SYMBOL(kstrtoull);

int kstrtoll(const char *s, unsigned int base, long long *res)
{
	unsigned long long value;
	int err;

	if (*s == '-') {
		err = parse_unsigned(s + 1, base, &value);
		if (err)
			return err;
		if ((long long)-value > 0)
			return -ERANGE;
		*res = -value;
		return 0;
	}
	err = kstrtoull(s, base, &value);
	if (err)
		return err;
	if ((long long)value < 0)
		return -ERANGE;
	*res = value;
	return 0;
}
EXPORT_SYMBOL(kstrtoll);

#define DEFINE_KSTRTO(name, type, wide, parse)                         \
	int name(const char *s, unsigned int base, type *res)          \
	{                                                              \
		wide value;                                            \
		int err = parse(s, base, &value);                      \
									\
		if (err)                                               \
			return err;                                    \
		if (value != (type)value)                              \
			return -ERANGE;                                \
		*res = value;                                          \
		return 0;                                              \
	}                                                              \
	EXPORT_SYMBOL(name)

DEFINE_KSTRTO(_kstrtoul, unsigned long, unsigned long long, kstrtoull);
DEFINE_KSTRTO(_kstrtol, long, long long, kstrtoll);
DEFINE_KSTRTO(kstrtouint, unsigned int, unsigned long long, kstrtoull);
DEFINE_KSTRTO(kstrtoint, int, long long, kstrtoll);
DEFINE_KSTRTO(kstrtou16, u16, unsigned long long, kstrtoull);
DEFINE_KSTRTO(kstrtos16, s16, long long, kstrtoll);
DEFINE_KSTRTO(kstrtou8, u8, unsigned long long, kstrtoull);
DEFINE_KSTRTO(kstrtos8, s8, long long, kstrtoll);

/* Only the first characters count: y, t, 1, on; n, f, 0, off; in upper or lower case. */
int kstrtobool(const char *s, bool *res)
{
	if (!s)
		return -EINVAL;
	switch (s[0]) {
	case 'y':
	case 'Y':
	case 't':
	case 'T':
	case '1':
		*res = true;
		return 0;
	case 'n':
	case 'N':
	case 'f':
	case 'F':
	case '0':
		*res = false;
		return 0;
	case 'o':
	case 'O':
		if (_tolower(s[1]) == 'n') {
			*res = true;
			return 0;
		}
		if (_tolower(s[1]) == 'f') {
			*res = false;
			return 0;
		}
	}
	return -EINVAL;
}
EXPORT_SYMBOL(kstrtobool);

#define DEFINE_KSTRTO_FROM_USER(name, parse, type)                                             \
	int name(const char __user *s, size_t count, unsigned int base, type *res)             \
	{                                                                                      \
		/* sign, base 2, newline, NUL */                                               \
		char buf[1 + sizeof(type) * 8 + 1 + 1];                                        \
												\
		count = min(count, sizeof(buf) - 1);                                           \
		if (copy_from_user(buf, s, count))                                             \
			return -EFAULT;                                                        \
		buf[count] = '\0';                                                             \
		return parse(buf, base, res);                                                  \
	}                                                                                      \
	EXPORT_SYMBOL(name)

DEFINE_KSTRTO_FROM_USER(kstrtoull_from_user, kstrtoull, unsigned long long);
DEFINE_KSTRTO_FROM_USER(kstrtoll_from_user, kstrtoll, long long);
DEFINE_KSTRTO_FROM_USER(kstrtouint_from_user, kstrtouint, unsigned int);
DEFINE_KSTRTO_FROM_USER(kstrtoint_from_user, kstrtoint, int);

int kstrtobool_from_user(const char __user *s, size_t count, bool *res)
{
	char buf[4];

	count = min(count, sizeof(buf) - 1);
	if (copy_from_user(buf, s, count))
		return -EFAULT;
	buf[count] = '\0';
	return kstrtobool(buf, res);
}
EXPORT_SYMBOL(kstrtobool_from_user);

unsigned long long simple_strtoull(const char *cp, char **endp, unsigned int base)
{
	unsigned long long value;

	cp = skip_prefix(cp, &base);
	cp += parse_digits(cp, base, &value, INT_MAX) & ~OVERFLOW;
	if (endp)
		*endp = (char *)cp;
	return value;
}
EXPORT_SYMBOL(simple_strtoull);

long long simple_strtoll(const char *cp, char **endp, unsigned int base)
{
	return *cp == '-' ? -simple_strtoull(cp + 1, endp, base) : simple_strtoull(cp, endp, base);
}
EXPORT_SYMBOL(simple_strtoll);

unsigned long simple_strtoul(const char *cp, char **endp, unsigned int base)
{
	return simple_strtoull(cp, endp, base);
}
EXPORT_SYMBOL(simple_strtoul);

long simple_strtol(const char *cp, char **endp, unsigned int base)
{
	return simple_strtoll(cp, endp, base);
}
EXPORT_SYMBOL(simple_strtol);
