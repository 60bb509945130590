/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GENERATED_UTSRELEASE_H
#define _GENERATED_UTSRELEASE_H

#define UTS_RELEASE "4.12.0-klpfs"

#endif
