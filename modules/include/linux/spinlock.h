/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SPINLOCK_H
#define _LINUX_SPINLOCK_H

#include <linux/bottom_half.h>
#include <linux/irqflags.h>
#include <linux/lockdep.h>
#include <linux/preempt.h>
#include <linux/spinlock_types.h>

#define __LOCK(lock) do { preempt_disable(); (void)(lock); } while (0)
#define __UNLOCK(lock) do { (void)(lock); preempt_enable(); } while (0)
#define __LOCK_BH(lock) do { local_bh_disable(); (void)(lock); } while (0)
#define __UNLOCK_BH(lock) do { (void)(lock); local_bh_enable(); } while (0)
#define __LOCK_IRQ(lock) do { local_irq_disable(); __LOCK(lock); } while (0)
#define __UNLOCK_IRQ(lock) do { local_irq_enable(); __UNLOCK(lock); } while (0)
#define __LOCK_IRQSAVE(lock, flags) do { local_irq_save(flags); __LOCK(lock); } while (0)
#define __UNLOCK_IRQRESTORE(lock, flags) do { local_irq_restore(flags); __UNLOCK(lock); } while (0)

#define raw_spin_lock_init(lock) do { (void)(lock); } while (0)
#define raw_spin_lock(lock) __LOCK(lock)
#define raw_spin_unlock(lock) __UNLOCK(lock)
#define raw_spin_lock_irq(lock) __LOCK_IRQ(lock)
#define raw_spin_unlock_irq(lock) __UNLOCK_IRQ(lock)
#define raw_spin_lock_irqsave(lock, flags) __LOCK_IRQSAVE(lock, flags)
#define raw_spin_unlock_irqrestore(lock, flags) __UNLOCK_IRQRESTORE(lock, flags)
#define raw_spin_trylock(lock) ({ __LOCK(lock); 1; })

#define spin_lock_init(lock) do { (void)(lock); } while (0)
#define spin_lock(lock) __LOCK(lock)
#define spin_unlock(lock) __UNLOCK(lock)
#define spin_lock_bh(lock) __LOCK_BH(lock)
#define spin_unlock_bh(lock) __UNLOCK_BH(lock)
#define spin_lock_irq(lock) __LOCK_IRQ(lock)
#define spin_unlock_irq(lock) __UNLOCK_IRQ(lock)
#define spin_lock_irqsave(lock, flags) __LOCK_IRQSAVE(lock, flags)
#define spin_unlock_irqrestore(lock, flags) __UNLOCK_IRQRESTORE(lock, flags)
#define spin_trylock(lock) ({ __LOCK(lock); 1; })
#define assert_spin_locked(lock) do { (void)(lock); } while (0)

#include <linux/rwlock.h>

#endif
