/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The extensions of %p: Documentation/core-api/printk-formats.rst. */

#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/err.h>
#include <linux/kallsyms.h>
#include <linux/kernel.h>
#include <linux/string.h>

#include "printf.h"

static const struct spec plain = { .width = -1, .precision = -1, .base = 10 };

static void emit_hex_bytes(struct out *out, const u8 *bytes, int count, char separator)
{
	for (int i = 0; i < count; i++) {
		if (i && separator)
			emit(out, separator);
		emit(out, hex_asc_hi(bytes[i]));
		emit(out, hex_asc_lo(bytes[i]));
	}
}

/* Print an address unchanged (%px). */
static void emit_address(struct out *out, const void *ptr, struct spec spec)
{
	spec.base = 16;
	spec.flags |= SMALL;
	if (spec.width == -1) {
		spec.width = 2 * sizeof(ptr);
		spec.flags |= ZEROPAD;
	}
	emit_number(out, (unsigned long)ptr, spec);
}

/* Print a hash of an address, as addresses must not leak (%p). Equal addresses look equal. */
static void emit_hashed(struct out *out, const void *ptr, struct spec spec)
{
	unsigned long id;

	if (IS_ERR_OR_NULL(ptr)) {
		emit_address(out, ptr, spec);
		return;
	}
	id = ptr_to_id(ptr);
	if (id) {
		emit_address(out, (void *)id, spec);
		return;
	}
	if (spec.width == -1)
		spec.width = 2 * sizeof(ptr);
	emit_string(out, "(____ptrval____)", spec);
}

/* %pS %ps %pB, and %pSR %psR. */
static void emit_symbol(struct out *out, const char *ext, void *ptr, struct spec spec)
{
	char symbol[KSYM_SYMBOL_LEN];
	unsigned long address = (unsigned long)ptr;

	if (*ext == 'B')
		sprint_backtrace(symbol, address);
	else if (*ext == 'S')
		sprint_symbol(symbol, address);
	else
		sprint_symbol_no_offset(symbol, address);
	emit_string(out, symbol, spec);
}

/* %*ph, %*phC, %*phD, %*phN: the width is the number of bytes. */
static void emit_hex_string(struct out *out, const char *ext, const u8 *bytes, struct spec spec)
{
	char separator = ' ';

	if (!spec.width || emit_bad_pointer(out, bytes, spec))
		return;
	switch (ext[1]) {
	case 'C': separator = ':'; break;
	case 'D': separator = '-'; break;
	case 'N': separator = 0; break;
	}
	emit_hex_bytes(out, bytes, spec.width > 0 ? min(spec.width, 64) : 1, separator);
}

/* %pM, with dashes %pMF, backwards %pMR; %pm and %pmR without separators. */
static void emit_mac(struct out *out, const char *ext, const u8 *bytes)
{
	u8 mac[6];

	for (int i = 0; i < 6; i++)
		mac[i] = bytes[ext[1] == 'R' ? 5 - i : i];
	emit_hex_bytes(out, mac, 6, ext[0] == 'm' ? 0 : ext[1] == 'F' ? '-' : ':');
}

/* %pI4, %pi4 (with leading zeros), each with h, n, b or l for the byte order. */
static void emit_ip4(struct out *out, const char *ext, const u8 *bytes)
{
	bool swapped = ext[2] == 'h' || ext[2] == 'l';
	struct spec spec = plain;

	if (ext[0] == 'i') {
		spec.width = 3;
		spec.flags = ZEROPAD;
	}
	for (int i = 0; i < 4; i++) {
		if (i)
			emit(out, '.');
		emit_number(out, bytes[swapped ? 3 - i : i], spec);
	}
}

/* %pI6, %pi6 (without colons). */
static void emit_ip6(struct out *out, const char *ext, const u8 *bytes)
{
	for (int i = 0; i < 8; i++) {
		if (i && ext[0] == 'I')
			emit(out, ':');
		emit_hex_bytes(out, bytes + 2 * i, 2, 0);
	}
}

/* %pI6c: RFC 5952, where the longest run of zeros is left out. */
static void emit_ip6_short(struct out *out, const u8 *bytes)
{
	static const u8 v4_mapped[12] = { [10] = 0xff, [11] = 0xff };
	bool mapped = !memcmp(bytes, v4_mapped, sizeof(v4_mapped));
	struct spec spec = { .width = -1, .precision = -1, .base = 16, .flags = SMALL };
	int words = mapped ? 6 : 8, gap = -1, gap_length = 1;

	for (int i = 0; i < words; i++) {
		int n = 0;

		while (i + n < words && !bytes[2 * (i + n)] && !bytes[2 * (i + n) + 1])
			n++;
		if (n > gap_length) {
			gap = i;
			gap_length = n;
		}
	}
	for (int i = 0; i < words; i++) {
		if (i)
			emit(out, ':');
		if (i == gap) {
			i += gap_length - 1;
			if (gap == 0)
				emit(out, ':');
			if (i == words - 1)
				emit(out, ':');
			continue;
		}
		emit_number(out, bytes[2 * i] << 8 | bytes[2 * i + 1], spec);
	}
	if (mapped) {
		emit(out, ':');
		emit_ip4(out, "I4", bytes + 12);
	}
}

/* %pUb %pUB (big endian), %pUl %pUL (little endian); B and L print upper case. */
static void emit_uuid(struct out *out, const char *ext, const u8 *bytes)
{
	static const u8 big[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
	static const u8 little[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	const u8 *order = ext[1] == 'l' || ext[1] == 'L' ? little : big;
	const char *digits = ext[1] == 'L' || ext[1] == 'B' ? hex_asc_upper : hex_asc;

	for (int i = 0; i < 16; i++) {
		u8 byte = bytes[order[i]];

		emit(out, digits[byte >> 4]);
		emit(out, digits[byte & 15]);
		if (i == 3 || i == 5 || i == 7 || i == 9)
			emit(out, '-');
	}
}

/* Print extensions that are text: the text is built first, then padded like a string. */
static void emit_name(struct out *out, const char *ext, const u8 *bytes, struct spec spec)
{
	char buffer[64];
	struct out name = { buffer, buffer + sizeof(buffer) };

	if (emit_bad_pointer(out, bytes, spec))
		return;
	if (*ext == 'M' || *ext == 'm')
		emit_mac(&name, ext, bytes);
	else if (*ext == 'U')
		emit_uuid(&name, ext, bytes);
	else if (ext[1] == '4')
		emit_ip4(&name, ext, bytes);
	else if (ext[0] == 'I' && ext[2] == 'c')
		emit_ip6_short(&name, bytes);
	else
		emit_ip6(&name, ext, bytes);
	emit(&name, '\0');
	emit_string(out, buffer, spec);
}

/* %*pb: 32 bits at a time; %*pbl: a list of ranges. The width is the number of bits. */
static void emit_bitmap(struct out *out, const char *ext, const unsigned long *bits,
			struct spec spec)
{
	int count = spec.width > 0 ? spec.width : 0;
	bool first = true;

	if (emit_bad_pointer(out, bits, spec))
		return;
	if (ext[1] == 'l') {
		for (int i = 0; i < count; i++) {
			int start = i;

			if (!test_bit(i, bits))
				continue;
			while (i + 1 < count && test_bit(i + 1, bits))
				i++;
			if (!first)
				emit(out, ',');
			first = false;
			emit_number(out, start, plain);
			if (i > start) {
				emit(out, '-');
				emit_number(out, i, plain);
			}
		}
		return;
	}
	for (int at = (count - 1) / 32 * 32; count && at >= 0; at -= 32) {
		int here = first && count % 32 ? count % 32 : 32;
		struct spec hex = { .width = (here + 3) / 4, .precision = -1, .base = 16,
				    .flags = SMALL | ZEROPAD };

		if (!first)
			emit(out, ',');
		first = false;
		emit_number(out, (bits[at / 64] >> at % 64) & (~0u >> (32 - here)), hex);
	}
}

static void emit_va_format(struct out *out, struct va_format *format, struct spec spec)
{
	struct arguments args;

	if (emit_bad_pointer(out, format, spec))
		return;
	va_copy(args.list, *format->va);
	emit_format(out, format->fmt, &args);
	va_end(args.list);
}

static void emit_error(struct out *out, const void *ptr, struct spec spec)
{
	const char *name;

	if (!IS_ERR(ptr)) {
		emit_hashed(out, ptr, spec);
		return;
	}
	name = errname(PTR_ERR(ptr));
	if (name) {
		emit_string(out, name, spec);
		return;
	}
	spec.flags |= SIGN;
	emit_number(out, PTR_ERR(ptr), spec);
}

void emit_pointer(struct out *out, const char *ext, void *ptr, struct spec spec)
{
	switch (*ext) {
	case 'S':
	case 's':
	case 'B':
		emit_symbol(out, ext, ptr, spec);
		return;
	case 'x':
		emit_address(out, ptr, spec);
		return;
	case 'h':
		emit_hex_string(out, ext, ptr, spec);
		return;
	case 'I':
	case 'i':
		if (ext[1] != '4' && ext[1] != '6')
			break;
		fallthrough;
	case 'M':
	case 'm':
	case 'U':
		emit_name(out, ext, ptr, spec);
		return;
	case 'b':
		emit_bitmap(out, ext, ptr, spec);
		return;
	case 'V':
		emit_va_format(out, ptr, spec);
		return;
	case 'e':
		emit_error(out, ptr, spec);
		return;
	case 'G':
		if (ext[1] != 'g')
			break;
		emit_gfp_flags(out, *(gfp_t *)ptr);
		return;
	case 'a':
		if (emit_bad_pointer(out, ptr, spec))
			return;
		spec.width = 2 + 2 * sizeof(phys_addr_t);
		spec.base = 16;
		spec.flags |= SPECIAL | SMALL | ZEROPAD;
		emit_number(out, *(phys_addr_t *)ptr, spec);
		return;
	}
	/* %p, %pK (kptr_restrict is 0), and unknown extensions. */
	emit_hashed(out, ptr, spec);
}
