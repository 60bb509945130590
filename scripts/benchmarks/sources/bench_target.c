// SPDX-License-Identifier: GPL-2.0-or-later
/* A function to patch. A number that is written to the parameter "run" is how often it is called. */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

noinline unsigned long bench_target_function(unsigned long i);
noinline unsigned long bench_target_function(unsigned long i)
{
	barrier();
	return i + 1;
}

noinline unsigned long bench_target_loop(unsigned long n);
noinline unsigned long bench_target_loop(unsigned long n)
{
	unsigned long i, sum = 0;

	for (i = 0; i < n; i++)
		sum += bench_target_function(i);
	return sum;
}

static unsigned long sum;

static int set_run(const char *text, const struct kernel_param *param)
{
	unsigned long n;
	int ret = kstrtoul(text, 0, &n);

	if (!ret)
		sum = bench_target_loop(n);
	return ret;
}

static const struct kernel_param_ops run_ops = {
	.set = set_run,
	.get = param_get_ulong,
};
module_param_cb(run, &run_ops, &sum, 0644);

static int __init bench_target_init(void)
{
	return 0;
}

static void __exit bench_target_exit(void)
{
}

module_init(bench_target_init);
module_exit(bench_target_exit);
MODULE_LICENSE("GPL");
