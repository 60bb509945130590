/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_MODULE_H
#define _ASM_MODULE_H

struct mod_arch_specific {
};

#define MODULE_ARCH_INIT {}

#endif
