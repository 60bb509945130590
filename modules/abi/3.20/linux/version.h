/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_VERSION_H
#define _LINUX_VERSION_H

#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_MAJOR 3
#define LINUX_VERSION_PATCHLEVEL 20
#define LINUX_VERSION_SUBLEVEL 0
#define LINUX_VERSION_CODE KERNEL_VERSION(3, 20, 0)

#endif
