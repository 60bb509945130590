/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GENERATED_LIVEPATCH_H
#define _GENERATED_LIVEPATCH_H

/* Shadow variables came with 4.15. */
#define KLP_SERVICES klp_register_patch, klp_unregister_patch, klp_enable_patch, klp_disable_patch

#endif
