// SPDX-License-Identifier: GPL-2.0-or-later
/* Loops that the benchmark calls with the number of rounds. */
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>

/* A task that never gives up the processor while "spin" is set. */
static bool spin;
module_param(spin, bool, 0644);

#define AREA 8192
static unsigned long area[AREA];

noinline unsigned long bench_callee(unsigned long i);
noinline unsigned long bench_callee(unsigned long i)
{
	barrier();
	return i + 1;
}

noinline unsigned long bench_calls(unsigned long n);
noinline unsigned long bench_calls(unsigned long n)
{
	unsigned long i, sum = 0;

	for (i = 0; i < n; i++)
		sum += bench_callee(i);
	return sum;
}

noinline unsigned long bench_loops(unsigned long n);
noinline unsigned long bench_loops(unsigned long n)
{
	unsigned long i, x = 88172645463325252UL;

	for (i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	return x;
}

noinline unsigned long bench_memory(unsigned long n);
noinline unsigned long bench_memory(unsigned long n)
{
	unsigned long i, sum = 0;

	for (i = 0; i < n; i++) {
		unsigned long *p = &area[(i * 67) % AREA];

		sum += *p;
		*p = sum ^ i;
	}
	return sum;
}

noinline unsigned long bench_kmalloc(unsigned long n);
noinline unsigned long bench_kmalloc(unsigned long n)
{
	unsigned long i;

	for (i = 0; i < n; i++)
		kfree(kmalloc(64, GFP_KERNEL));
	return i;
}

noinline unsigned long bench_printk(unsigned long n);
noinline unsigned long bench_printk(unsigned long n)
{
	unsigned long i;

	for (i = 0; i < n; i++)
		printk(KERN_DEBUG "bench\n");
	return i;
}

noinline unsigned long bench_yield(unsigned long n);
noinline unsigned long bench_yield(unsigned long n)
{
	unsigned long i;

	for (i = 0; i < n; i++)
		schedule();
	return i;
}

static int spinner(void *data)
{
	while (!kthread_should_stop()) {
		while (READ_ONCE(spin))
			cpu_relax();
		schedule_timeout_interruptible(HZ / 100);
	}
	return 0;
}

static struct task_struct *task;

static int __init bench_guest_init(void)
{
	task = kthread_run(spinner, NULL, "bench_spinner");
	return PTR_ERR_OR_ZERO(task);
}

static void __exit bench_guest_exit(void)
{
	spin = false;
	kthread_stop(task);
}

module_init(bench_guest_init);
module_exit(bench_guest_exit);
MODULE_LICENSE("GPL");
