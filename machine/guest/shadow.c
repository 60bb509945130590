/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shadow variables: data that a live patch attaches to an object that it did not allocate.
 * kernel/livepatch/shadow.c
 */

#define pr_fmt(fmt) "livepatch: " fmt

#include <linux/hashtable.h>
#include <linux/livepatch.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <generated/livepatch.h>

#include "bug_at.h"

#if IS_ENABLED(CONFIG_LIVEPATCH) && defined(KLP_SHADOW_VARIABLES)

#define SHADOW_HASH_BITS 12

struct klp_shadow {
	struct hlist_node node;
	struct rcu_head rcu_head;
	void *obj;
	unsigned long id;
	char data[];
};

static DEFINE_HASHTABLE(klp_shadow_hash, SHADOW_HASH_BITS);
static DEFINE_SPINLOCK(klp_shadow_lock);

/* The variable, if there is one: klp_shadow_match() for each in the bucket. */
static struct klp_shadow *find(void *obj, unsigned long id)
{
	struct klp_shadow *shadow;

	hash_for_each_possible_rcu(klp_shadow_hash, shadow, node, (unsigned long)obj)
		if (shadow->obj == obj && shadow->id == id)
			return shadow;
	return NULL;
}

void *klp_shadow_get(void *obj, unsigned long id)
{
	struct klp_shadow *shadow;

	rcu_read_lock();
	shadow = find(obj, id);
	rcu_read_unlock();
	return shadow ? shadow->data : NULL;
}
EXPORT_SYMBOL_GPL(klp_shadow_get);

/*
 * __klp_shadow_get_or_alloc(): attach a new variable and return its data, or leave that of an existing
 * one in *old. The constructor runs under the lock, so that no task sees a variable that is not complete.
 */
static void *attach(void *obj, unsigned long id, size_t size, gfp_t gfp_flags,
		    klp_shadow_ctor_t ctor, void *ctor_data, void **old)
{
	struct klp_shadow *fresh, *present;
	unsigned long flags;
	int err = 0;

	*old = klp_shadow_get(obj, id);
	if (*old)
		return NULL;
	/* Before the lock is taken, since it may sleep. It is freed if another task attaches one first. */
	fresh = kzalloc(sizeof(*fresh) + size, gfp_flags);
	if (!fresh)
		return NULL;
	fresh->obj = obj;
	fresh->id = id;

	spin_lock_irqsave(&klp_shadow_lock, flags);
	present = find(obj, id);
	if (!present && ctor)
		err = ctor(obj, fresh->data, ctor_data);
	if (!present && !err)
		hash_add_rcu(klp_shadow_hash, &fresh->node, (unsigned long)obj);
	spin_unlock_irqrestore(&klp_shadow_lock, flags);

	if (err)
		pr_err("Failed to construct shadow variable <%p, %lx> (%d)\n", obj, id, err);
	if (!present && !err)
		return fresh->data;
	kfree(fresh);
	*old = present ? present->data : NULL;
	return NULL;
}

void *klp_shadow_alloc(void *obj, unsigned long id, size_t size, gfp_t gfp_flags,
		       klp_shadow_ctor_t ctor, void *ctor_data)
{
	void *old, *data = attach(obj, id, size, gfp_flags, ctor, ctor_data, &old);

	WARN_AT(old, "kernel/livepatch/shadow.c", 165, "Duplicate shadow variable <%p, %lx>\n", obj, id);
	return data;
}
EXPORT_SYMBOL_GPL(klp_shadow_alloc);

void *klp_shadow_get_or_alloc(void *obj, unsigned long id, size_t size, gfp_t gfp_flags,
			      klp_shadow_ctor_t ctor, void *ctor_data)
{
	void *old, *data = attach(obj, id, size, gfp_flags, ctor, ctor_data, &old);

	return data ? data : old;
}
EXPORT_SYMBOL_GPL(klp_shadow_get_or_alloc);

/* klp_shadow_free_struct(), and taking it off the list. */
static void detach(struct klp_shadow *shadow, klp_shadow_dtor_t dtor)
{
	hash_del_rcu(&shadow->node);
	if (dtor)
		dtor(shadow->obj, shadow->data);
	kfree_rcu(shadow, rcu_head);
}

void klp_shadow_free(void *obj, unsigned long id, klp_shadow_dtor_t dtor)
{
	struct klp_shadow *shadow;
	unsigned long flags;

	spin_lock_irqsave(&klp_shadow_lock, flags);
	shadow = find(obj, id);
	if (shadow)
		detach(shadow, dtor);
	spin_unlock_irqrestore(&klp_shadow_lock, flags);
}
EXPORT_SYMBOL_GPL(klp_shadow_free);

void klp_shadow_free_all(unsigned long id, klp_shadow_dtor_t dtor)
{
	struct klp_shadow *shadow;
	struct hlist_node *next;
	unsigned long flags;
	int bucket;

	spin_lock_irqsave(&klp_shadow_lock, flags);
	hash_for_each_safe(klp_shadow_hash, bucket, next, shadow, node)
		if (shadow->id == id)
			detach(shadow, dtor);
	spin_unlock_irqrestore(&klp_shadow_lock, flags);
}
EXPORT_SYMBOL_GPL(klp_shadow_free_all);

#endif
