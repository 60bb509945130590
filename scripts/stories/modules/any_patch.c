// SPDX-License-Identifier: GPL-2.0-or-later
/* A live patch whose functions, objects and faults are chosen by parameters. */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static char *object;
module_param(object, charp, 0444);
static char *name = "cmdline_proc_show";
module_param(name, charp, 0444);
static char *second;
module_param(second, charp, 0444);
static ulong sympos;
module_param(sympos, ulong, 0444);
static bool replace;
module_param(replace, bool, 0444);
static bool without;
module_param(without, bool, 0444);
static bool empty;
module_param(empty, bool, 0444);
static bool nothing;
module_param(nothing, bool, 0444);
static bool unowned;
module_param(unowned, bool, 0444);
static int result;
module_param(result, int, 0444);
static uint version;
module_param(version, uint, 0444);

static int any_patch_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s instead of %s\n", KBUILD_MODNAME, name);
	return 0;
}

static int any_patch_call(void)
{
	pr_info("%s instead of %s\n", KBUILD_MODNAME, name);
	return 0;
}

static struct klp_func funcs[] = { { }, { }, { } };
static struct klp_object objs[] = { { }, { } };
static struct klp_state states[] = { { .id = 7 }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };

static int __init any_patch_init(void)
{
	int ret;

	funcs[0].old_name = name;
	funcs[0].new_func = without ? NULL : object ? (void *)any_patch_call : (void *)any_patch_show;
	funcs[0].old_sympos = sympos;
	funcs[1].old_name = second;
	funcs[1].new_func = second ? any_patch_show : NULL;
	objs[0].name = object;
	objs[0].funcs = empty ? NULL : funcs;
	patch.replace = replace;
	if (version) {
		states[0].version = version;
		patch.states = states;
	}
	if (nothing)
		patch.objs = NULL;
	if (unowned)
		patch.mod = NULL;
	ret = klp_enable_patch(&patch);
	pr_info(KBUILD_MODNAME ": klp_enable_patch() returned %d\n", ret);
	return ret ? ret : result;
}

static void __exit any_patch_exit(void)
{
}

module_init(any_patch_init);
module_exit(any_patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
