/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_RATELIMIT_H
#define _LINUX_RATELIMIT_H

#include <linux/ratelimit_types.h>

#endif
