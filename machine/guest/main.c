/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel command line: init/main.c. */

#include <linux/init.h>
#include <linux/types.h>
#include <generated/utsrelease.h>

#define COMMAND_LINE_SIZE 2048

char boot_command_line[COMMAND_LINE_SIZE] =
	"BOOT_IMAGE=/boot/vmlinuz-" UTS_RELEASE " root=/dev/ram0 ro quiet";
char *saved_command_line = boot_command_line;
