/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parsers for numbers and words of a command line: lib/cmdline.c. */

#include <linux/ctype.h>
#include <linux/kernel.h>
#include <linux/string.h>

/*
 * Read one number of a comma-separated list and move *str behind it. Return 0 if there is none, 1
 * for the last one, 2 if a comma follows, 3 if it begins a range; then *str is at the '-'.
 */
int get_option(char **str, int *pint)
{
	char *cur = *str;
	int value;

	if (!cur || !*cur)
		return 0;
	value = *cur == '-' ? -simple_strtoull(++cur, str, 0) : simple_strtoull(cur, str, 0);
	if (pint)
		*pint = value;
	if (cur == *str)
		return 0;
	if (**str == ',') {
		(*str)++;
		return 2;
	}
	return **str == '-' ? 3 : 1;
}
EXPORT_SYMBOL(get_option);

/* Store the numbers of a list in ints[1...], their count in ints[0]. Return the unread rest. */
char *get_options(const char *str, int nints, int *ints)
{
	bool validate = nints == 0;
	int i = 1;

	while (i < nints || validate) {
		int *pint = validate ? ints : ints + i, first, last;
		int more = get_option((char **)&str, pint);

		if (!more)
			break;
		if (more == 3) {
			first = *pint;
			str++;
			if (!get_option((char **)&str, &last) || last < first)
				break;
			for (; first <= last && (validate || i < nints); first++, i++)
				if (!validate)
					ints[i] = first;
			continue;
		}
		i++;
		if (more == 1)
			break;
	}
	ints[0] = i - 1;
	return (char *)str;
}
EXPORT_SYMBOL(get_options);

/* Read a number that may have one of the suffixes K, M, G, T, P, E. */
unsigned long long memparse(const char *ptr, char **retp)
{
	static const char suffixes[] = "kmgtpe";
	char *end;
	unsigned long long value = simple_strtoull(ptr, &end, 0);
	const char *suffix = *end ? strchr(suffixes, tolower(*end)) : NULL;

	if (suffix) {
		value <<= 10 * (suffix - suffixes + 1);
		end++;
	}
	if (retp)
		*retp = end;
	return value;
}
EXPORT_SYMBOL(memparse);

/* Split "name", "name=value" or name="value with spaces" off args. Return the rest. */
char *next_arg(char *args, char **param, char **val)
{
	bool quoted = *args == '"', in_quotes = quoted;
	size_t equals = 0, i;
	char *next;

	if (quoted)
		args++;
	for (i = 0; args[i]; i++) {
		if (isspace(args[i]) && !in_quotes)
			break;
		if (!equals && args[i] == '=')
			equals = i;
		if (args[i] == '"')
			in_quotes = !in_quotes;
	}
	next = args[i] ? args + i + 1 : args + i;
	*param = args;
	*val = NULL;
	if (equals) {
		args[equals] = '\0';
		*val = args + equals + 1;
		if (**val == '"') {
			(*val)++;
			if (args[i - 1] == '"')
				args[i - 1] = '\0';
		}
	}
	if (quoted && i > 0 && args[i - 1] == '"')
		args[i - 1] = '\0';
	args[i] = '\0';
	return skip_spaces(next);
}
EXPORT_SYMBOL(next_arg);
