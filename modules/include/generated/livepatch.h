/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GENERATED_LIVEPATCH_H
#define _GENERATED_LIVEPATCH_H

/* The functions of the livepatch API that are services in Python. This API has shadow variables. */
#define KLP_SERVICES klp_enable_patch, klp_get_state, klp_get_prev_state
#define KLP_SHADOW_VARIABLES 1

#endif
