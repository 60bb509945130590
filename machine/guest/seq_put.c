/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Output functions for show callbacks: fs/seq_file.c. If text does not fit, the buffer is full.
 */

#include <linux/kernel.h>
#include <linux/printk.h>
#include <linux/seq_file.h>
#include <linux/string.h>

#define ESCAPE_OCTAL BIT(3)
#define ESCAPE_APPEND BIT(6)

static void seq_set_overflow(struct seq_file *m)
{
	m->count = m->size;
}

int seq_write(struct seq_file *m, const void *data, size_t len)
{
	if (m->count + len < m->size) {
		memcpy(m->buf + m->count, data, len);
		m->count += len;
		return 0;
	}
	seq_set_overflow(m);
	return -1;
}
EXPORT_SYMBOL(seq_write);

void seq_vprintf(struct seq_file *m, const char *fmt, va_list args)
{
	if (m->count < m->size) {
		int len = vsnprintf(m->buf + m->count, m->size - m->count, fmt, args);

		if (m->count + len < m->size) {
			m->count += len;
			return;
		}
	}
	seq_set_overflow(m);
}
EXPORT_SYMBOL(seq_vprintf);

void seq_printf(struct seq_file *m, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	seq_vprintf(m, fmt, args);
	va_end(args);
}
EXPORT_SYMBOL(seq_printf);

void seq_putc(struct seq_file *m, char c)
{
	if (m->count < m->size)
		m->buf[m->count++] = c;
}
EXPORT_SYMBOL(seq_putc);

void seq_puts(struct seq_file *m, const char *s)
{
	seq_write(m, s, strlen(s));
}
EXPORT_SYMBOL(seq_puts);

void seq_put_decimal_ull_width(struct seq_file *m, const char *delimiter, unsigned long long num,
			       unsigned int width)
{
	int len;

	if (m->count + 2 >= m->size)
		goto overflow;
	if (delimiter && delimiter[0]) {
		if (delimiter[1] == '\0')
			seq_putc(m, delimiter[0]);
		else
			seq_puts(m, delimiter);
	}
	if (!width)
		width = 1;
	if (m->count + width >= m->size)
		goto overflow;
	len = num_to_str(m->buf + m->count, m->size - m->count, num, width);
	if (!len)
		goto overflow;
	m->count += len;
	return;
overflow:
	seq_set_overflow(m);
}

void seq_put_decimal_ull(struct seq_file *m, const char *delimiter, unsigned long long num)
{
	seq_put_decimal_ull_width(m, delimiter, num, 0);
}
EXPORT_SYMBOL(seq_put_decimal_ull);

void seq_put_decimal_ll(struct seq_file *m, const char *delimiter, long long num)
{
	if (num >= 0) {
		seq_put_decimal_ull(m, delimiter, num);
		return;
	}
	if (delimiter)
		seq_puts(m, delimiter);
	seq_put_decimal_ull(m, "-", -(unsigned long long)num);
}
EXPORT_SYMBOL(seq_put_decimal_ll);

/* Write at least width digits. */
void seq_put_hex_ll(struct seq_file *m, const char *delimiter, unsigned long long v,
		    unsigned int width)
{
	if (delimiter && delimiter[0])
		seq_puts(m, delimiter);
	seq_printf(m, "%0*llx", width ?: 1, v);
}

void seq_pad(struct seq_file *m, char c)
{
	int size = m->pad_until - m->count;

	if (size > 0) {
		if (size + m->count > m->size) {
			seq_set_overflow(m);
			return;
		}
		memset(m->buf + m->count, ' ', size);
		m->count += size;
	}
	if (c)
		seq_putc(m, c);
}
EXPORT_SYMBOL(seq_pad);

/* Write bytes that are in esc as \ooo. Linux supports more flags. */
void seq_escape_mem(struct seq_file *m, const char *src, size_t len, unsigned int flags,
		    const char *esc)
{
	for (; len && m->count < m->size; len--, src++) {
		if (esc && *src && strchr(esc, *src))
			seq_printf(m, "\\%03o", (unsigned char)*src);
		else
			seq_putc(m, *src);
	}
	if (len)
		seq_set_overflow(m);
}
EXPORT_SYMBOL(seq_escape_mem);

void seq_escape(struct seq_file *m, const char *s, const char *esc)
{
	seq_escape_mem(m, s, strlen(s), ESCAPE_OCTAL | ESCAPE_APPEND, esc);
}
EXPORT_SYMBOL(seq_escape);

/* Copy p with \ooo for characters in esc. Return the end, or NULL if the copy reached p. */
char *mangle_path(char *s, const char *p, const char *esc)
{
	while (s <= p) {
		char c = *p++;

		if (!c)
			return s;
		if (!strchr(esc, c)) {
			*s++ = c;
			continue;
		}
		if (s + 4 > p)
			break;
		*s++ = '\\';
		*s++ = '0' + ((c & 0300) >> 6);
		*s++ = '0' + ((c & 070) >> 3);
		*s++ = '0' + (c & 07);
	}
	return NULL;
}
EXPORT_SYMBOL(mangle_path);

void seq_hex_dump(struct seq_file *m, const char *prefix_str, int prefix_type, int rowsize,
		  int groupsize, const void *buf, size_t len, bool ascii)
{
	char line[32 * 3 + 2 + 32 + 1];

	if (rowsize != 16 && rowsize != 32)
		rowsize = 16;
	for (size_t i = 0; i < len && !seq_has_overflowed(m); i += rowsize) {
		const void *row = buf + i;

		hex_dump_to_buffer(row, min(len - i, (size_t)rowsize), rowsize, groupsize, line,
				   sizeof(line), ascii);
		if (prefix_type == DUMP_PREFIX_ADDRESS)
			seq_printf(m, "%s%p: %s\n", prefix_str, row, line);
		else if (prefix_type == DUMP_PREFIX_OFFSET)
			seq_printf(m, "%s%.8x: %s\n", prefix_str, (unsigned int)i, line);
		else
			seq_printf(m, "%s%s\n", prefix_str, line);
	}
}
EXPORT_SYMBOL(seq_hex_dump);
