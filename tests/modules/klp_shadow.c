// SPDX-License-Identifier: GPL-2.0-or-later
/* Shadow variables, through functions that the tests call. */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/slab.h>

#define ID 0x5ad

static int dying;
module_param(dying, int, 0644);
static int constructed, destroyed, sum;
module_param(constructed, int, 0444);
module_param(destroyed, int, 0444);
module_param(sum, int, 0444);

static int constructor(void *obj, void *data, void *ctor_data)
{
	if (dying)
		*(volatile int *)0 = 1;
	constructed++;
	*(long *)data = (long)ctor_data;
	return (long)ctor_data < 0 ? (long)ctor_data : 0;
}

static void destructor(void *obj, void *data)
{
	destroyed++;
	sum += *(long *)data;
}

/* All return the value of the variable, or -1 if there is none. */
static long value(long *data)
{
	return data ? *data : -1;
}

noinline long shadow_alloc(void *obj, long initial);
noinline long shadow_alloc(void *obj, long initial)
{
	return value(klp_shadow_alloc(obj, ID, sizeof(long), GFP_KERNEL, constructor,
				      (void *)initial));
}

noinline long shadow_get_or_alloc(void *obj, long initial);
noinline long shadow_get_or_alloc(void *obj, long initial)
{
	return value(klp_shadow_get_or_alloc(obj, ID, sizeof(long), GFP_KERNEL, constructor,
					     (void *)initial));
}

noinline long shadow_get(void *obj, unsigned long id);
noinline long shadow_get(void *obj, unsigned long id)
{
	return value(klp_shadow_get(obj, id));
}

noinline void shadow_free(void *obj);
noinline void shadow_free(void *obj)
{
	klp_shadow_free(obj, ID, destructor);
}

noinline void shadow_free_all(bool destroy);
noinline void shadow_free_all(bool destroy)
{
	klp_shadow_free_all(ID, destroy ? destructor : NULL);
}

MODULE_LICENSE("GPL");
