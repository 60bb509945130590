// SPDX-License-Identifier: GPL-2.0-or-later
/* A parameter whose read is slow. */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

static int number = 7;

static int slow_get(char *buffer, const struct kernel_param *kp)
{
	msleep(300);
	return param_get_int(buffer, kp);
}

static const struct kernel_param_ops slow_ops = { .set = param_set_int, .get = slow_get };
module_param_cb(number, &slow_ops, &number, 0644);

static int __init slow_init(void)
{
	return 0;
}

static void __exit slow_exit(void)
{
}

module_init(slow_init);
module_exit(slow_exit);
MODULE_LICENSE("GPL");
