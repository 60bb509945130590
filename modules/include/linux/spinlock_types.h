/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SPINLOCK_TYPES_H
#define _LINUX_SPINLOCK_TYPES_H

#include <linux/types.h>

/* With one CPU, a spinlock only disables preemption, so it has no data. */
typedef struct raw_spinlock {
} raw_spinlock_t;

typedef struct spinlock {
} spinlock_t;

typedef struct {
} rwlock_t;

#define __RAW_SPIN_LOCK_UNLOCKED(name) (raw_spinlock_t){}
#define __SPIN_LOCK_UNLOCKED(name) (spinlock_t){}
#define __RW_LOCK_UNLOCKED(name) (rwlock_t){}
#define DEFINE_RAW_SPINLOCK(x) raw_spinlock_t x = {}
#define DEFINE_SPINLOCK(x) spinlock_t x = {}
#define DEFINE_RWLOCK(x) rwlock_t x = {}

#endif
