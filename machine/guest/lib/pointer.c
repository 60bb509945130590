/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the letters after %p mean. Documentation/core-api/printk-formats.rst. */

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

/* An address as it is (%px). */
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

/* An address that must not get out: what stands for it is always the same (%p). */
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

static u8 reversed_bits(u8 byte)
{
	u8 result = 0;

	for (int i = 0; i < 8; i++)
		result |= (byte >> i & 1) << (7 - i);
	return result;
}

/* %pM %pMF %pMR %pm %pmR. */
static void emit_mac(struct out *out, const char *ext, const u8 *bytes, struct spec spec)
{
	u8 mac[6];

	if (emit_bad_pointer(out, bytes, spec))
		return;
	memcpy(mac, bytes, sizeof(mac));
	if (ext[1] == 'R')
		for (int i = 0; i < 6; i++)
			mac[i] = ext[0] == 'm' ? bytes[5 - i] : reversed_bits(bytes[i]);
	if (ext[0] == 'M' && ext[1] == 'R')
		for (int i = 0; i < 6; i++)
			mac[i] = bytes[5 - i];
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

/* %pI6, %pi6 (without colons), %pI6c (RFC 5952). */
static void emit_ip6(struct out *out, const char *ext, const u8 *bytes)
{
	int gap = -1, gap_length = 1;
	struct spec spec = { .width = -1, .precision = -1, .base = 16, .flags = SMALL };

	if (ext[0] == 'I' && ext[2] == 'c') {
		for (int i = 0; i < 8; i++) {
			int n = 0;

			while (i + n < 8 && !bytes[2 * (i + n)] && !bytes[2 * (i + n) + 1])
				n++;
			if (n > gap_length) {
				gap = i;
				gap_length = n;
			}
		}
	} else {
		spec.width = 4;
		spec.flags |= ZEROPAD;
	}
	for (int i = 0; i < 8; i++) {
		if (i == gap) {
			emit(out, ':');
			if (i + gap_length == 8)
				emit(out, ':');
			i += gap_length - 1;
			continue;
		}
		if (i && ext[0] == 'I')
			emit(out, ':');
		emit_number(out, bytes[2 * i] << 8 | bytes[2 * i + 1], spec);
	}
}

static void emit_ip(struct out *out, const char *ext, const u8 *bytes, struct spec spec)
{
	if (emit_bad_pointer(out, bytes, spec))
		return;
	if (ext[1] == '4')
		emit_ip4(out, ext, bytes);
	else
		emit_ip6(out, ext, bytes);
}

/* %pUb %pUB (big endian), %pUl %pUL (little endian); capitals for capitals. */
static void emit_uuid(struct out *out, const char *ext, const u8 *bytes, struct spec spec)
{
	static const u8 big[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
	static const u8 little[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	const u8 *order = ext[1] == 'l' || ext[1] == 'L' ? little : big;
	const char *digits = ext[1] == 'L' || ext[1] == 'B' ? hex_asc_upper : hex_asc;

	if (emit_bad_pointer(out, bytes, spec))
		return;
	for (int i = 0; i < 16; i++) {
		u8 byte = bytes[order[i]];

		emit(out, digits[byte >> 4]);
		emit(out, digits[byte & 15]);
		if (i == 3 || i == 5 || i == 7 || i == 9)
			emit(out, '-');
	}
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
	case 'M':
	case 'm':
		emit_mac(out, ext, ptr, spec);
		return;
	case 'I':
	case 'i':
		if (ext[1] == '4' || ext[1] == '6') {
			emit_ip(out, ext, ptr, spec);
			return;
		}
		break;
	case 'U':
		emit_uuid(out, ext, ptr, spec);
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
	case 'a':
		if (emit_bad_pointer(out, ptr, spec))
			return;
		spec.width = 2 + 2 * sizeof(phys_addr_t);
		spec.base = 16;
		spec.flags |= SPECIAL | SMALL | ZEROPAD;
		emit_number(out, *(phys_addr_t *)ptr, spec);
		return;
	}
	/* %p, %pK (kptr_restrict is 0), and what has no meaning. */
	emit_hashed(out, ptr, spec);
}
