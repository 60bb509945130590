/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The functions that are services in Python: one stub for each name of a @service that is not marked
 * with embedded=False. At boot, a trap is written over the start of each stub. Until then a call raises
 * an invalid opcode exception. tests/test_services.py compares the stubs with the services.
 */

#include <linux/linkage.h>
#include <asm/export.h>
#include <generated/autoconf.h>
#include <generated/livepatch.h>

.macro stub name
	.balign	16, 0x90
	.globl	\name
	.type	\name, @function
\name:
	ud2
	.fill	14, 1, 0x90
	.size	\name, . - \name
.endm

.macro SERVICE names:vararg
	.irp name, \names
	stub	\name
	.endr
.endm

.macro EXPORTED_SERVICE names:vararg
	.irp name, \names
	stub	\name
	EXPORT_SYMBOL(\name)
	.endr
.endm

.macro EXPORTED_SERVICE_GPL names:vararg
	.irp name, \names
	stub	\name
	EXPORT_SYMBOL_GPL(\name)
	.endr
.endm

	.section .services.text, "ax"

/* Memory. */
	EXPORTED_SERVICE __kmalloc, __kmalloc_node, kmalloc_trace, kfree, krealloc, ksize
	EXPORTED_SERVICE kvmalloc_node, kvfree, vmalloc, vzalloc, vfree
	EXPORTED_SERVICE __get_free_pages
	EXPORTED_SERVICE free_pages, si_meminfo
	EXPORTED_SERVICE_GPL __alloc_percpu, free_percpu

/* The log, panics, symbols. */
	EXPORTED_SERVICE vprintk_emit, panic, add_taint, test_taint, dump_stack
	EXPORTED_SERVICE_GPL sprint_symbol, sprint_symbol_no_offset, sprint_symbol_build_id
	SERVICE function_trace_call, get_taint, sprint_backtrace, sprint_backtrace_build_id, kallsyms_lookup_name

/* Scheduling and threads. */
	EXPORTED_SERVICE schedule, schedule_timeout, schedule_timeout_interruptible
	EXPORTED_SERVICE schedule_timeout_killable, schedule_timeout_uninterruptible, io_schedule
	EXPORTED_SERVICE yield, __cond_resched, wake_up_process, kthread_create_on_node
	EXPORTED_SERVICE kthread_stop, kthread_should_stop, kthread_complete_and_exit
	EXPORTED_SERVICE_GPL kthread_data, kthread_park, kthread_unpark, kthread_parkme
	EXPORTED_SERVICE_GPL kthread_should_park, __put_task_struct
	SERVICE preempt_schedule_common, wake_up_state, kthread_exit, do_exit

/* Locks. */
	EXPORTED_SERVICE mutex_lock, mutex_lock_interruptible, mutex_lock_killable, mutex_trylock
	EXPORTED_SERVICE mutex_unlock, mutex_is_locked, down, down_interruptible, down_killable
	EXPORTED_SERVICE down_trylock, down_timeout, up, down_read, down_read_trylock, up_read
	EXPORTED_SERVICE down_write, down_write_trylock, up_write

/* Waiting. */
	EXPORTED_SERVICE wait_for_completion, wait_for_completion_timeout
	EXPORTED_SERVICE wait_for_completion_interruptible, wait_for_completion_killable
	EXPORTED_SERVICE wait_for_completion_interruptible_timeout, try_wait_for_completion
	EXPORTED_SERVICE completion_done, complete, complete_all
	EXPORTED_SERVICE default_wake_function

/* Workqueues. */
	EXPORTED_SERVICE queue_work_on, queue_delayed_work_on, flush_delayed_work, cancel_work
	EXPORTED_SERVICE cancel_delayed_work, cancel_delayed_work_sync, __flush_workqueue
	EXPORTED_SERVICE delayed_work_timer_fn
	EXPORTED_SERVICE_GPL mod_delayed_work_on, flush_work, cancel_work_sync, alloc_workqueue
	EXPORTED_SERVICE_GPL destroy_workqueue, drain_workqueue, work_busy

/* Time. */
	EXPORTED_SERVICE msleep, msleep_interruptible, usleep_range_state, __udelay, __ndelay
	EXPORTED_SERVICE add_timer, mod_timer, del_timer, del_timer_sync, ktime_get_real_ts64
	EXPORTED_SERVICE_GPL round_jiffies, round_jiffies_relative, ktime_get
	EXPORTED_SERVICE_GPL ktime_get_with_offset, ktime_get_seconds, ktime_get_real_seconds
	EXPORTED_SERVICE_GPL ktime_get_ts64, getboottime64, ktime_get_real, ktime_get_boottime
	EXPORTED_SERVICE_GPL ktime_get_ns, ktime_get_real_ns, ktime_get_boottime_ns
	EXPORTED_SERVICE_GPL ktime_get_boottime_ts64, sched_clock, local_clock

/* RCU. */
	EXPORTED_SERVICE_GPL synchronize_rcu, synchronize_rcu_tasks, call_rcu, kvfree_call_rcu
	EXPORTED_SERVICE_GPL rcu_barrier

/* Modules. */
	EXPORTED_SERVICE try_module_get, module_put, __module_get, __symbol_put
	EXPORTED_SERVICE __module_put_and_kthread_exit
	EXPORTED_SERVICE_GPL __symbol_get

/* Ftrace and live patching. */
	EXPORTED_SERVICE_GPL register_ftrace_function, unregister_ftrace_function
	EXPORTED_SERVICE_GPL ftrace_set_filter_ip, ftrace_set_filter, ftrace_free_filter
#ifdef CONFIG_LIVEPATCH
	EXPORTED_SERVICE_GPL KLP_SERVICES
	SERVICE klp_refcount_zero
#endif
	SERVICE ftrace_location

/* /proc. */
	EXPORTED_SERVICE proc_create, proc_create_data, proc_create_single_data
	EXPORTED_SERVICE proc_create_seq_private, proc_mkdir, proc_mkdir_mode, proc_symlink
	EXPORTED_SERVICE proc_remove, remove_proc_entry, remove_proc_subtree, proc_set_size, pde_data
	EXPORTED_SERVICE_GPL proc_mkdir_data

/* Random numbers. */
	EXPORTED_SERVICE get_random_bytes, get_random_u32, get_random_u64

	.section .note.GNU-stack, "", @progbits
