/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration of modules/include without CONFIG_LIVEPATCH. */
#include_next <generated/autoconf.h>

#undef CONFIG_LIVEPATCH
