/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The list of modules and its notifiers: kernel/module/main.c. */

#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/vermagic.h>

/* The vermagic that modules must have. */
const char vermagic[] = VERMAGIC_STRING;

LIST_HEAD(modules);
DEFINE_MUTEX(module_mutex);
BLOCKING_NOTIFIER_HEAD(module_notify_list);

int register_module_notifier(struct notifier_block *nb)
{
	return blocking_notifier_chain_register(&module_notify_list, nb);
}
EXPORT_SYMBOL(register_module_notifier);

int unregister_module_notifier(struct notifier_block *nb)
{
	return blocking_notifier_chain_unregister(&module_notify_list, nb);
}
EXPORT_SYMBOL(unregister_module_notifier);

/* The caller has disabled preemption or holds module_mutex. */
struct module *find_module(const char *name)
{
	struct module *mod;

	list_for_each_entry(mod, &modules, list)
		if (mod->state != MODULE_STATE_UNFORMED && !strcmp(mod->name, name))
			return mod;
	return NULL;
}

struct module *__module_address(unsigned long addr)
{
	struct module *mod;

	list_for_each_entry(mod, &modules, list)
		if (mod->state != MODULE_STATE_UNFORMED && within_module(addr, mod))
			return mod;
	return NULL;
}

static bool within(unsigned long addr, const struct module_layout *layout)
{
	return addr - (unsigned long)layout->base < layout->text_size;
}

struct module *__module_text_address(unsigned long addr)
{
	struct module *mod = __module_address(addr);

	if (mod && !within(addr, &mod->core_layout) && !within(addr, &mod->init_layout))
		return NULL;
	return mod;
}

bool is_module_address(unsigned long addr)
{
	bool ret;

	preempt_disable();
	ret = __module_address(addr) != NULL;
	preempt_enable();
	return ret;
}

bool is_module_text_address(unsigned long addr)
{
	bool ret;

	preempt_disable();
	ret = __module_text_address(addr) != NULL;
	preempt_enable();
	return ret;
}

/* The loader itself holds one reference. */
int module_refcount(struct module *mod)
{
	return atomic_read(&mod->refcnt) - 1;
}
EXPORT_SYMBOL(module_refcount);
