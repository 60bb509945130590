/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The API of Linux 4.12: patches are registered, then enabled with a transition. */
#ifndef _LINUX_LIVEPATCH_H
#define _LINUX_LIVEPATCH_H

#include <linux/completion.h>
#include <linux/ftrace.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/sched.h>

#define KLP_UNDEFINED -1
#define KLP_UNPATCHED 0
#define KLP_PATCHED 1

struct klp_func {
	const char *old_name;
	void *new_func;
	/* The position among several symbols of that name, from 1; 0 if there is only one. */
	unsigned long old_sympos;
	/* The transition does not wait for tasks that run the old function. */
	bool immediate;

	/* internal */
	union {
		unsigned long old_addr;
		void *old_func;
	};
	struct kobject kobj;
	struct list_head node;
	struct list_head stack_node;
	unsigned long old_size, new_size;
	bool nop;
	bool patched;
	bool transition;
};

struct klp_object {
	/* The name of the module, or NULL for vmlinux. */
	const char *name;
	struct klp_func *funcs;

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
	/* The transition waits for no task. The module can never be unloaded. */
	bool immediate;

	/* internal */
	struct list_head list;
	struct kobject kobj;
	struct list_head obj_list;
	bool enabled;
	bool forced;
	struct completion finish;
};

#define klp_for_each_object(patch, obj) for (obj = patch->objs; obj->funcs || obj->name; obj++)
#define klp_for_each_func(obj, func) \
	for (func = obj->funcs; func->old_name || func->new_func || func->old_sympos; func++)

extern int klp_register_patch(struct klp_patch *patch);
extern int klp_unregister_patch(struct klp_patch *patch);
extern int klp_enable_patch(struct klp_patch *patch);
extern int klp_disable_patch(struct klp_patch *patch);

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

#endif
