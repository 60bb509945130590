/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_PROCESSOR_H
#define _LINUX_PROCESSOR_H

#include <asm/processor.h>

#endif
