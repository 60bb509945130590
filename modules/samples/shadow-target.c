// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A module with a structure that lacks a member: nothing says how old a ticket is.
 *
 * A kernel thread draws a ticket, keeps it for a while, and returns it, over and over. shadow-patch.c
 * adds the missing member to tickets that are drawn while it is enabled.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/slab.h>

struct ticket {
	int number;
};

static int drawn;
module_param(drawn, int, 0444);
MODULE_PARM_DESC(drawn, "number of tickets drawn so far");

noinline struct ticket *ticket_draw(void);
noinline struct ticket *ticket_draw(void)
{
	struct ticket *ticket = kzalloc(sizeof(*ticket), GFP_KERNEL);

	if (ticket)
		ticket->number = ++drawn;
	return ticket;
}

noinline void ticket_return(struct ticket *ticket);
noinline void ticket_return(struct ticket *ticket)
{
	pr_info("ticket %d is returned\n", ticket->number);
	kfree(ticket);
}

static int run(void *data)
{
	while (!kthread_should_stop()) {
		struct ticket *ticket = ticket_draw();

		msleep_interruptible(2000);
		if (ticket)
			ticket_return(ticket);
	}
	return 0;
}

static struct task_struct *task;

static int __init target_init(void)
{
	task = kthread_run(run, NULL, "tickets");
	return PTR_ERR_OR_ZERO(task);
}

static void __exit target_exit(void)
{
	kthread_stop(task);
}

module_init(target_init);
module_exit(target_exit);
MODULE_LICENSE("GPL");
