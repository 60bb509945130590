// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A live patch that adds a member to a structure, with a shadow variable.
 *
 * struct ticket of shadow-target.c cannot grow: tickets exist, and code that is not patched uses them.
 * The patch attaches the new member to each ticket from outside. Tickets that were drawn before the
 * patch was enabled have none, and the patched functions must cope with that.
 *
 *	$ insmod shadow-target.ko && insmod shadow-patch.ko
 *	$ dmesg -w
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jiffies.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/slab.h>

/* The same definition as in the patched module. */
struct ticket {
	int number;
};

/* An address and a number identify a shadow variable; this is the number. */
#define TICKET_DRAWN_AT 1

static noinline struct ticket *patched_draw(void)
{
	struct ticket *ticket = kzalloc(sizeof(*ticket), GFP_KERNEL);
	static int number = 1000;
	unsigned long *drawn_at;

	if (!ticket)
		return NULL;
	ticket->number = ++number;
	drawn_at = klp_shadow_alloc(ticket, TICKET_DRAWN_AT, sizeof(*drawn_at), GFP_KERNEL, NULL, NULL);
	if (drawn_at)
		*drawn_at = jiffies;
	return ticket;
}

static noinline void patched_return(struct ticket *ticket)
{
	unsigned long *drawn_at = klp_shadow_get(ticket, TICKET_DRAWN_AT);

	if (drawn_at)
		pr_info("ticket %d is returned after %u ms\n", ticket->number,
			jiffies_to_msecs(jiffies - *drawn_at));
	else
		pr_info("ticket %d is returned, drawn before the patch\n", ticket->number);
	klp_shadow_free(ticket, TICKET_DRAWN_AT, NULL);
	kfree(ticket);
}

/* No task runs the patched functions any more: the variables of tickets that are still out can go. */
static void post_unpatch(struct klp_object *obj)
{
	klp_shadow_free_all(TICKET_DRAWN_AT, NULL);
}

static struct klp_func funcs[] = {
	{ .old_name = "ticket_draw", .new_func = patched_draw },
	{ .old_name = "ticket_return", .new_func = patched_return },
	{ }
};

static struct klp_object objs[] = {
	{ .name = "shadow_target", .funcs = funcs, .callbacks = { .post_unpatch = post_unpatch } },
	{ }
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };

static int __init patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
