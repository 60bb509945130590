/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GENERATED_LIVEPATCH_H
#define _GENERATED_LIVEPATCH_H

/* System states came with 5.5. */
#define KLP_SERVICES klp_enable_patch
#define KLP_SHADOW_VARIABLES 1

#endif
