/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_RWLOCK_H
#define _LINUX_RWLOCK_H

#include <linux/spinlock.h>

#define rwlock_init(lock) do { (void)(lock); } while (0)
#define read_lock(lock) __LOCK(lock)
#define read_unlock(lock) __UNLOCK(lock)
#define write_lock(lock) __LOCK(lock)
#define write_unlock(lock) __UNLOCK(lock)
#define read_lock_irq(lock) __LOCK_IRQ(lock)
#define read_unlock_irq(lock) __UNLOCK_IRQ(lock)
#define write_lock_irq(lock) __LOCK_IRQ(lock)
#define write_unlock_irq(lock) __UNLOCK_IRQ(lock)
#define read_lock_irqsave(lock, flags) __LOCK_IRQSAVE(lock, flags)
#define read_unlock_irqrestore(lock, flags) __UNLOCK_IRQRESTORE(lock, flags)
#define write_lock_irqsave(lock, flags) __LOCK_IRQSAVE(lock, flags)
#define write_unlock_irqrestore(lock, flags) __UNLOCK_IRQRESTORE(lock, flags)

#endif
