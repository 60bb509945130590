/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GENERATED_LIVEPATCH_H
#define _GENERATED_LIVEPATCH_H

/* The functions of livepatch's API that Python stands in for, and whether there are shadow variables. */
#define KLP_SERVICES klp_enable_patch, klp_get_state, klp_get_prev_state
#define KLP_SHADOW_VARIABLES 1

#endif
