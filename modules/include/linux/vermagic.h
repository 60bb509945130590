/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_VERMAGIC_H
#define _LINUX_VERMAGIC_H

#include <generated/utsrelease.h>

#define VERMAGIC_STRING UTS_RELEASE " preempt mod_unload "

#endif
