/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first API, merged for 3.20: patches are registered, then enabled without a transition. */
#ifndef _LINUX_LIVEPATCH_H
#define _LINUX_LIVEPATCH_H

#include <linux/ftrace.h>
#include <linux/list.h>
#include <linux/module.h>

enum klp_state {
	KLP_DISABLED,
	KLP_ENABLED
};

struct klp_func {
	const char *old_name;
	void *new_func;
	/* The address of the function in vmlinux, if several have its name; 0 to look it up. */
	union {
		unsigned long old_addr;
		/* internal */
		void *old_func;
	};

	/* internal */
	struct kobject kobj;
	union {
		enum klp_state state;
		bool patched;
	};
	struct list_head node;
	struct list_head stack_node;
	unsigned long old_size, new_size;
	bool nop;
	bool transition;
};

/* A place in the patch to relocate with the address of a symbol that is not exported. */
struct klp_reloc {
	unsigned long loc;
	/* The address of the symbol. The patch sets it for vmlinux, the core for modules. */
	unsigned long val;
	/* R_X86_64_... */
	unsigned long type;
	const char *name;
	int addend;
	/* The symbol is exported or in the patch itself, not in the patched object. */
	int external;
};

struct klp_object {
	/* The name of the module, or NULL for vmlinux. */
	const char *name;
	struct klp_reloc *relocs;
	struct klp_func *funcs;

	/* internal */
	struct kobject kobj;
	struct list_head func_list;
	struct list_head node;
	struct module *mod;
	bool dynamic;
	union {
		enum klp_state state;
		bool patched;
	};
};

struct klp_patch {
	struct module *mod;
	struct klp_object *objs;

	/* internal */
	struct list_head list;
	struct kobject kobj;
	struct list_head obj_list;
	union {
		enum klp_state state;
		bool enabled;
	};
	bool forced;
};

#define klp_for_each_object(patch, obj) for (obj = patch->objs; obj->funcs; obj++)
#define klp_for_each_func(obj, func) for (func = obj->funcs; func->old_name; func++)

extern int klp_register_patch(struct klp_patch *patch);
extern int klp_unregister_patch(struct klp_patch *patch);
extern int klp_enable_patch(struct klp_patch *patch);
extern int klp_disable_patch(struct klp_patch *patch);

#endif
