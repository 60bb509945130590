/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Caches of objects of one size: mm/slab_common.c. Each object is an ordinary allocation. A cache
 * only counts them.
 */

#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "bug_at.h"

struct kmem_cache {
	const char *name;
	unsigned int size;
	unsigned int objects;
	slab_flags_t flags;
	void (*ctor)(void *object);
};

struct kmem_cache *kmem_cache_create(const char *name, unsigned int size, unsigned int align,
				     slab_flags_t flags, void (*ctor)(void *))
{
	struct kmem_cache *s = kzalloc(sizeof(*s), GFP_KERNEL);

	if (s) {
		s->name = kstrdup_const(name, GFP_KERNEL);
		s->size = align ? ALIGN(size, align) : size;
		s->flags = flags;
		s->ctor = ctor;
	}
	if (!s || !s->name) {
		kfree(s);
		if (flags & SLAB_PANIC)
			panic("%s: Failed to create slab '%s'. Error %d\n", __func__, name,
			      -ENOMEM);
		return NULL;
	}
	return s;
}
EXPORT_SYMBOL(kmem_cache_create);

void kmem_cache_destroy(struct kmem_cache *s)
{
	if (!s)
		return;
	if (WARN_AT(s->objects, "mm/slab_common.c", 493,
		 "%s %s: Slab cache still has objects when called from %pS", __func__,
		 s->name, (void *)_RET_IP_))
		return;
	kfree_const(s->name);
	kfree(s);
}
EXPORT_SYMBOL(kmem_cache_destroy);

void *kmem_cache_alloc(struct kmem_cache *s, gfp_t flags)
{
	void *object = __kmalloc(s->size, flags);

	if (object) {
		s->objects++;
		if (s->ctor)
			s->ctor(object);
	}
	return object;
}
EXPORT_SYMBOL(kmem_cache_alloc);

void kmem_cache_free(struct kmem_cache *s, void *objp)
{
	s->objects--;
	kfree(objp);
}
EXPORT_SYMBOL(kmem_cache_free);
