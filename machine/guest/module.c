/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The list of modules, and who wants to be told of changes: kernel/module/main.c. */

#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/vermagic.h>

/* What a module has to say of itself. */
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
