/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Conversions between bytes and hexadecimal digits: lib/hexdump.c. */

#include <linux/ctype.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/printk.h>
#include <linux/string.h>
#include <asm/unaligned.h>

const char hex_asc[] = "0123456789abcdef";
EXPORT_SYMBOL(hex_asc);
const char hex_asc_upper[] = "0123456789ABCDEF";
EXPORT_SYMBOL(hex_asc_upper);

int hex_to_bin(unsigned char ch)
{
	if (isdigit(ch))
		return ch - '0';
	ch = toupper(ch);
	return 'A' <= ch && ch <= 'F' ? ch - 'A' + 10 : -1;
}
EXPORT_SYMBOL(hex_to_bin);

int hex2bin(u8 *dst, const char *src, size_t count)
{
	while (count--) {
		int high = hex_to_bin(*src++), low;

		if (high < 0)
			return -EINVAL;
		low = hex_to_bin(*src++);
		if (low < 0)
			return -EINVAL;
		*dst++ = high << 4 | low;
	}
	return 0;
}
EXPORT_SYMBOL(hex2bin);

char *bin2hex(char *dst, const void *src, size_t count)
{
	for (const unsigned char *byte = src; count--; byte++)
		dst = hex_byte_pack(dst, *byte);
	return dst;
}
EXPORT_SYMBOL(bin2hex);

static unsigned long long group_at(const void *at, int size)
{
	switch (size) {
	case 8: return get_unaligned((const u64 *)at);
	case 4: return get_unaligned((const u32 *)at);
	case 2: return get_unaligned((const u16 *)at);
	}
	return *(const u8 *)at;
}

/* Write one line of a dump. Return its full length, even if it did not fit. */
int hex_dump_to_buffer(const void *buf, size_t len, int rowsize, int groupsize, char *linebuf,
		       size_t linebuflen, bool ascii)
{
	int at = 0, ascii_column;

	if (rowsize != 16 && rowsize != 32)
		rowsize = 16;
	len = min(len, (size_t)rowsize);
	if ((groupsize != 2 && groupsize != 4 && groupsize != 8) || len % groupsize)
		groupsize = 1;
	ascii_column = rowsize * 2 + rowsize / groupsize + 1;

#define put(...) (at += snprintf(at < linebuflen ? linebuf + at : NULL, \
				 at < linebuflen ? linebuflen - at : 0, __VA_ARGS__))
	if (!linebuflen || !len) {
		if (linebuflen)
			linebuf[0] = '\0';
		return len ? (ascii ? ascii_column + len : len / groupsize * (2 * groupsize + 1) - 1) : 0;
	}
	for (size_t i = 0; i < len; i += groupsize)
		put("%s%0*llx", i ? " " : "", 2 * groupsize, group_at(buf + i, groupsize));
	if (ascii) {
		put("%*s", ascii_column - at, "");
		for (size_t i = 0; i < len; i++) {
			char c = ((const char *)buf)[i];

			put("%c", isascii(c) && isprint(c) ? c : '.');
		}
	}
#undef put
	return at;
}
EXPORT_SYMBOL(hex_dump_to_buffer);

void print_hex_dump(const char *level, const char *prefix_str, int prefix_type, int rowsize,
		    int groupsize, const void *buf, size_t len, bool ascii)
{
	char line[32 * 3 + 2 + 32 + 1];

	if (rowsize != 16 && rowsize != 32)
		rowsize = 16;
	for (size_t i = 0; i < len; i += rowsize) {
		const void *row = buf + i;

		hex_dump_to_buffer(row, min(len - i, (size_t)rowsize), rowsize, groupsize, line,
				   sizeof(line), ascii);
		if (prefix_type == DUMP_PREFIX_ADDRESS)
			printk("%s%s%p: %s\n", level, prefix_str, row, line);
		else if (prefix_type == DUMP_PREFIX_OFFSET)
			printk("%s%s%.8x: %s\n", level, prefix_str, (unsigned int)i, line);
		else
			printk("%s%s%s\n", level, prefix_str, line);
	}
}
EXPORT_SYMBOL(print_hex_dump);
