/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The API of Linux 5.1: atomic replace and callbacks, no system states. */
#ifndef _LINUX_LIVEPATCH_H
#define _LINUX_LIVEPATCH_H

#include <linux/completion.h>
#include <linux/ftrace.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/workqueue.h>

#define KLP_UNDEFINED -1
#define KLP_UNPATCHED 0
#define KLP_PATCHED 1

struct klp_func {
	const char *old_name;
	void *new_func;
	/* The position among several symbols of that name, from 1; 0 if there is only one. */
	unsigned long old_sympos;

	/* internal */
	void *old_func;
	struct kobject kobj;
	struct list_head node;
	struct list_head stack_node;
	unsigned long old_size, new_size;
	bool nop;
	bool patched;
	bool transition;
};

struct klp_object;

struct klp_callbacks {
	int (*pre_patch)(struct klp_object *obj);
	void (*post_patch)(struct klp_object *obj);
	void (*pre_unpatch)(struct klp_object *obj);
	void (*post_unpatch)(struct klp_object *obj);
	bool post_unpatch_enabled;
};

struct klp_object {
	/* The name of the module, or NULL for vmlinux. */
	const char *name;
	struct klp_func *funcs;
	struct klp_callbacks callbacks;

	/* internal */
	struct kobject kobj;
	struct list_head func_list;
	struct list_head node;
	struct module *mod;
	bool dynamic;
	bool patched;
};

struct klp_patch {
	struct module *mod;
	struct klp_object *objs;
	bool replace;

	/* internal */
	struct list_head list;
	struct kobject kobj;
	struct list_head obj_list;
	bool enabled;
	bool forced;
	struct work_struct free_work;
	struct completion finish;
};

#define klp_for_each_object_static(patch, obj) \
	for (obj = patch->objs; obj->funcs || obj->name; obj++)
#define klp_for_each_object(patch, obj) list_for_each_entry(obj, &patch->obj_list, node)
#define klp_for_each_func_static(obj, func) \
	for (func = obj->funcs; func->old_name || func->new_func || func->old_sympos; func++)
#define klp_for_each_func(obj, func) list_for_each_entry(func, &obj->func_list, node)

extern int klp_enable_patch(struct klp_patch *patch);
extern void klp_copy_process(struct task_struct *child);
extern void klp_update_patch_state(struct task_struct *task);

static inline bool klp_patch_pending(struct task_struct *task)
{
	return test_tsk_thread_flag(task, TIF_PATCH_PENDING);
}

static inline bool klp_have_reliable_stack(void)
{
	return IS_ENABLED(CONFIG_STACKTRACE) && IS_ENABLED(CONFIG_HAVE_RELIABLE_STACKTRACE);
}

typedef int (*klp_shadow_ctor_t)(void *obj, void *shadow_data, void *ctor_data);
typedef void (*klp_shadow_dtor_t)(void *obj, void *shadow_data);

extern void *klp_shadow_get(void *obj, unsigned long id);
extern void *klp_shadow_alloc(void *obj, unsigned long id, size_t size, gfp_t gfp_flags,
			      klp_shadow_ctor_t ctor, void *ctor_data);
extern void *klp_shadow_get_or_alloc(void *obj, unsigned long id, size_t size, gfp_t gfp_flags,
				     klp_shadow_ctor_t ctor, void *ctor_data);
extern void klp_shadow_free(void *obj, unsigned long id, klp_shadow_dtor_t dtor);
extern void klp_shadow_free_all(unsigned long id, klp_shadow_dtor_t dtor);

#endif
