// SPDX-License-Identifier: GPL-2.0-or-later
/* A module to patch. A read of one of its parameters calls one of its functions. */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

noinline int answer(void);
noinline int answer(void)
{
	barrier();
	return 1;
}

static noinline int secret(void)
{
	barrier();
	return 42;
}

static int get_answer(char *buffer, const struct kernel_param *kp)
{
	return sprintf(buffer, "%d\n", answer());
}

static int get_secret(char *buffer, const struct kernel_param *kp)
{
	return sprintf(buffer, "%d\n", secret());
}

static const struct kernel_param_ops answer_ops = { .get = get_answer };
module_param_cb(answer, &answer_ops, NULL, 0444);
static const struct kernel_param_ops secret_ops = { .get = get_secret };
module_param_cb(secret, &secret_ops, NULL, 0444);

MODULE_LICENSE("GPL");
