// SPDX-License-Identifier: GPL-2.0-or-later
/* A hostile module: "fault" selects what it does, and "where" in which context. */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

static char *fault = "none";
module_param(fault, charp, 0);
static char *where = "init";
module_param(where, charp, 0);
static unsigned long value;
module_param(value, ulong, 0);

static noinline __used int works(void) { return 42; }
static const int constant = 1;
static DEFINE_MUTEX(mutex);
static DEFINE_SPINLOCK(lock);
static DECLARE_COMPLETION(never);
static struct timer_list timer;

static char *volatile nothing;

#define WILD 0xffff800000001000ul
#define POISON 0xdead000000000100ul

/* Hide an address from the compiler. */
static unsigned long hidden(void *address)
{
	asm volatile("" : "+r"(address));
	return (unsigned long)address;
}

static void read_null(void) { READ_ONCE(*(int *)(nothing + 8)); }
static void write_null(void) { WRITE_ONCE(*(int *)(nothing + 16), 1); }
static void call_null(void) { ((void (*)(void))READ_ONCE(value))(); }
static void read_wild(void) { READ_ONCE(*(int *)WILD); }
static void write_wild(void) { WRITE_ONCE(*(int *)WILD, 1); }
static void call_wild(void) { ((void (*)(void))WILD)(); }
static void read_noncanonical(void) { READ_ONCE(*(int *)POISON); }
static void call_noncanonical(void) { ((void (*)(void))POISON)(); }
static void write_text(void) { WRITE_ONCE(*(u8 *)works, 0xc3); }
static void write_rodata(void) { WRITE_ONCE(*(int *)&constant, 2); }
static void write_kernel_text(void) { WRITE_ONCE(*(u8 *)hidden(_printk), 0xc3); }
static void write_direct_map(void)
{
	/* A page of the kernel's text, through the direct map. */
	WRITE_ONCE(*(u8 *)(0xffff888000000000ul + hidden(_printk) - 0xffffffff81000000ul + 0x1000000), 0xc3);
}
static void execute_data(void)
{
	static u8 code[] = { 0xc3 };

	((void (*)(void))code)();
}
static void execute_stack(void)
{
	volatile u8 code[] = { 0xc3, 0xc3, 0xc3, 0xc3 };

	((void (*)(void))code)();
}
static void execute_heap(void)
{
	u8 *code = kmalloc(64, GFP_KERNEL);

	code[0] = 0xc3;
	((void (*)(void))code)();
}
static noinline int recurse(int n)
{
	volatile char room[256];

	room[0] = n;
	return n == INT_MAX ? 0 : recurse(n + 1) + room[0];
}
static void overflow_stack(void) { recurse(value); }
static void int3(void) { asm volatile("int3"); }
static void int_0x80(void) { asm volatile("int $0x80"); }
static void ud2(void) { asm volatile("ud2"); }
static void bug(void) { BUG(); }
static void bug_on(void) { BUG_ON(!value); }
static void warn_on(void) { WARN_ON(!value); }
static void warn_text(void) { WARN(1, "the number is %d\n", 7); }
static noinline void warn_once(void) { WARN_ON_ONCE(!value); }
static void warn_once_twice(void) { warn_once(); warn_once(); }
static void warn_kernel_once(void)
{
	char text[8];

	scnprintf(text, READ_ONCE(value) + INT_MAX + 1, "%d", 1);
}
static void warn_taint(void) { WARN_TAINT(1, TAINT_CRAP, "bad hardware\n"); }
static void divide(void)
{
	asm volatile("xorl %%edx, %%edx; movl $1, %%eax; xorl %%ecx, %%ecx; divl %%ecx" ::: "eax", "ecx", "edx");
}
static void hlt(void) { asm volatile("hlt"); }
static void cli(void) { asm volatile("cli"); }
static void mov_cr0(void) { asm volatile("mov %%cr0, %%rax; btr $16, %%rax; mov %%rax, %%cr0; 1: jmp 1b" ::: "rax"); }
static void mov_cr3(void) { asm volatile("mov %0, %%cr3; nop" :: "r"(0x5000ul) : "memory"); }
static void mov_cr4(void) { asm volatile("mov %%cr4, %%rax; btc $5, %%rax; mov %%rax, %%cr4; nop" ::: "rax"); }
static void wrmsr_efer(void)
{
	asm volatile("movl $0xc0000080, %%ecx; rdmsr; btr $11, %%eax; wrmsr; 1: jmp 1b" ::: "eax", "ecx", "edx");
}
static void wrmsr_gs(void)
{
	asm volatile("movl $0xc0000101, %%ecx; xorl %%eax, %%eax; movl $16, %%edx; wrmsr; movl %%gs:0, %%eax"
		     ::: "eax", "ecx", "edx");
}
static void swapgs(void) { asm volatile("swapgs; mov %%gs:0, %%rax" ::: "rax"); }
static void lidt(void)
{
	struct { u16 limit; u64 base; } __packed idt = { 0xfff, 0x1000 };

	asm volatile("lidt %0; 1: jmp 1b" :: "m"(idt));
}
static void lgdt(void)
{
	struct { u16 limit; u64 base; } __packed gdt = { 0x7f, 0x1000 };

	asm volatile("lgdt %0; 1: jmp 1b" :: "m"(gdt));
}
static void iretq(void) { asm volatile("iretq"); }
static void to_user_mode(void)
{
	asm volatile("pushq $0x2b; pushq %%rsp; pushfq; pushq $0x33; leaq 1f(%%rip), %%rax; pushq %%rax; iretq; 1: nop"
		     ::: "rax", "memory");
}
static void sysret(void) { asm volatile("sysretq"); }
static void syscall_(void) { asm volatile("syscall" ::: "rcx", "r11"); }
static void out(void)
{
	asm volatile("outb %%al, $0xe6; outb %%al, $0x64; outl %%eax, %%dx" :: "a"(0xfe), "d"(0xcf8));
}
static void in(void)
{
	u32 got;

	asm volatile("inl %%dx, %%eax" : "=a"(got) : "d"(0xcfc));
	pr_info("faulty: in gave %x\n", got);
}
static void modify_itself(void)
{
	asm volatile("lea 1f(%%rip), %%rax; movb $0x90, (%%rax); 1: int3" ::: "rax", "memory");
}
static void return_nowhere(void) { asm volatile("movq $0x1234, 8(%rbp)"); }
static void lose_stack(void) { asm volatile("xorl %esp, %esp; push %rax"); }
static void loop(void) { while (!READ_ONCE(value)) cpu_relax(); }
static void loop_atomic(void) { spin_lock(&lock); loop(); spin_unlock(&lock); }
static void loop_irqs_off(void) { asm volatile("cli"); loop(); }
static void loop_halted(void) { for (;;) asm volatile("cli; hlt"); }
static void loop_locking(void) { for (;;) { spin_lock(&lock); spin_unlock(&lock); } }
static void loop_printing(void) { for (;;) printk("and again\n"); }
static void loop_allocating(void) { for (;;) kfree(kmalloc(64, GFP_KERNEL)); }
static void loop_unlocking(void) { for (;;) { mutex_lock(&mutex); mutex_unlock(&mutex); } }
static void loop_sleeping(void) { for (;;) schedule_timeout_interruptible(0); }
static void spin_long(void) { spin_lock(&lock); __udelay(1000000000000ul); spin_unlock(&lock); }
static void loop_until_signal(void) { while (!signal_pending(current)) cpu_relax(); }
static void sleep_interruptibly(void) { wait_for_completion_interruptible(&never); }
static void sleep_for_ever(void) { wait_for_completion(&never); }
static void lock_twice(void) { mutex_lock(&mutex); mutex_lock(&mutex); }
static void unlock_unlocked(void) { mutex_unlock(&mutex); }
static void keep_locked(void) { mutex_lock(&mutex); }
static void keep_spinning(void) { spin_lock(&lock); }
static void sleep_atomic(void) { spin_lock(&lock); msleep(1); spin_unlock(&lock); }
static void mutex_atomic(void) { spin_lock(&lock); mutex_lock(&mutex); mutex_unlock(&mutex); spin_unlock(&lock); }
static void kmalloc_huge(void) { pr_info("faulty: kmalloc %d\n", !kmalloc(value, GFP_KERNEL)); }
static void vmalloc_huge(void) { pr_info("faulty: vmalloc %d\n", !vmalloc(value)); }
static void kvmalloc_huge(void) { pr_info("faulty: kvmalloc %d\n", !kvmalloc(value, GFP_KERNEL)); }
static void pages_huge(void) { pr_info("faulty: pages %d\n", !__get_free_pages(GFP_KERNEL, value)); }
static void take_all(void)
{
	unsigned long n = 0, size = value;
	void **last = NULL, **next;

	while ((next = kmalloc(size, GFP_KERNEL))) {
		*next = last;
		last = next;
		n++;
	}
	while (last) {
		next = *last;
		kfree(last);
		last = next;
	}
	pr_info("faulty: had %s\n", n > 1000 ? "many" : "few");
}
static void double_free(void) { void *p = kmalloc(64, GFP_KERNEL); kfree(p); kfree(p); }
static void free_inside(void) { char *p = kmalloc(64, GFP_KERNEL); kfree(p + 8); kfree(p); }
static void free_static(void) { kfree(&timer); }
static void free_wild(void) { kfree((void *)WILD); }
static void vfree_wild(void) { vfree((void *)WILD); }
static void use_after_free(void)
{
	struct list_head *p = kmalloc(64, GFP_KERNEL);

	kfree(p);
	READ_ONCE(READ_ONCE(p->next)->next);
}
static void write_after_free(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	kfree(p);
	WRITE_ONCE(p[24], 'x');
	kfree(kmalloc(64, GFP_KERNEL));
}
static void random_huge(void) { get_random_bytes((void *)&timer, 1ul << 40); }
static void printk_wild(void) { printk((char *)POISON); }
static void printk_string(void) { pr_info("%s|%s|%.3s\n", (char *)8, (char *)WILD, (char *)POISON); }
static void printk_n(void)
{
	static char format[] = "a%nb\n";

	printk(format, &value);
}
static void printk_wide(void) { pr_info("%2000000000d|%-1000000s|\n", 1, "x"); }
static void printk_long(void)
{
	char *text = kvmalloc(1 << 20, GFP_KERNEL);

	memset(text, 'y', (1 << 20) - 1);
	text[(1 << 20) - 1] = 0;
	pr_info("%s\n", text);
	kvfree(text);
}
static void printk_bytes(void) { pr_info("\xff\xfe\x80 \x1b[2J \xc3\x28\n"); }
static void flood(void)
{
	int i;

	for (i = 0; i < 1500; i++)
		pr_info("%1000d\n", i);
}
static void service_null(void) { mutex_lock(NULL); }
static void service_wild(void) { wake_up_process((void *)POISON); complete((void *)POISON); }
static void service_kthread(void) { kthread_stop((void *)WILD); queue_work((void *)WILD, (void *)WILD); }
static void table_spoilt(void)
{
	unsigned long cr3;

	/* The page-table entries of the direct map, through the direct map. */
	asm volatile("mov %%cr3, %0" : "=r"(cr3));
	memset((void *)(0xffff888000000000ul + cr3 + 2048), 0xff, 8 * 32);
	READ_ONCE(*(int *)(0xffff888000000000ul + 0x2000));
}
static void none(void) { }

#define FAULT(name) { #name, name }
static const struct { const char *name; void (*function)(void); } faults[] = {
	FAULT(none), FAULT(read_null), FAULT(write_null), FAULT(call_null), FAULT(read_wild), FAULT(write_wild),
	FAULT(call_wild), FAULT(read_noncanonical), FAULT(call_noncanonical), FAULT(write_text),
	FAULT(write_rodata), FAULT(write_kernel_text), FAULT(write_direct_map), FAULT(execute_data),
	FAULT(execute_stack), FAULT(execute_heap), FAULT(overflow_stack), FAULT(int3), FAULT(int_0x80),
	FAULT(ud2), FAULT(bug), FAULT(bug_on), FAULT(warn_on), FAULT(warn_text), FAULT(warn_once_twice),
	FAULT(warn_kernel_once),
	FAULT(warn_taint), FAULT(divide), FAULT(hlt),
	FAULT(cli), FAULT(mov_cr0), FAULT(mov_cr3), FAULT(mov_cr4), FAULT(wrmsr_efer), FAULT(wrmsr_gs),
	FAULT(swapgs), FAULT(lidt), FAULT(lgdt), FAULT(iretq), FAULT(to_user_mode), FAULT(sysret),
	{ "syscall", syscall_ }, FAULT(out), FAULT(in), FAULT(modify_itself), FAULT(return_nowhere),
	FAULT(lose_stack), FAULT(loop), FAULT(loop_atomic), FAULT(loop_irqs_off), FAULT(loop_halted),
	FAULT(loop_locking), FAULT(spin_long), FAULT(loop_printing),
	FAULT(loop_allocating), FAULT(loop_unlocking), FAULT(loop_sleeping), FAULT(loop_until_signal), FAULT(sleep_interruptibly),
	FAULT(sleep_for_ever), FAULT(lock_twice), FAULT(unlock_unlocked), FAULT(keep_locked),
	FAULT(keep_spinning), FAULT(sleep_atomic), FAULT(mutex_atomic), FAULT(kmalloc_huge),
	FAULT(vmalloc_huge), FAULT(kvmalloc_huge), FAULT(pages_huge), FAULT(take_all), FAULT(double_free),
	FAULT(free_inside), FAULT(free_static), FAULT(free_wild), FAULT(vfree_wild), FAULT(use_after_free),
	FAULT(write_after_free), FAULT(random_huge), FAULT(printk_wild), FAULT(printk_string),
	FAULT(printk_n), FAULT(printk_wide), FAULT(printk_long), FAULT(printk_bytes), FAULT(flood),
	FAULT(service_null), FAULT(service_wild), FAULT(service_kthread), FAULT(table_spoilt),
};

static void commit(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(faults); i++)
		if (!strcmp(faults[i].name, fault))
			faults[i].function();
}

static int show(struct seq_file *m, void *v)
{
	commit();
	seq_puts(m, "survived\n");
	return 0;
}

static int thread(void *data)
{
	commit();
	return 0;
}

static void work_function(struct work_struct *work)
{
	commit();
}
static DECLARE_WORK(work, work_function);

static void timer_function(struct timer_list *t)
{
	commit();
}

static int __init faulty_init(void)
{
	if (!strcmp(where, "init"))
		commit();
	else if (!strcmp(where, "proc"))
		proc_create_single("faulty", 0, NULL, show);
	else if (!strcmp(where, "kthread"))
		kthread_run(thread, NULL, "faulty");
	else if (!strcmp(where, "work"))
		schedule_work(&work);
	else if (!strcmp(where, "timer")) {
		timer_setup(&timer, timer_function, 0);
		mod_timer(&timer, jiffies + 1);
	} else
		return value;
	return 0;
}

static void __exit faulty_exit(void)
{
	if (!strcmp(where, "exit"))
		commit();
	if (!strcmp(where, "proc"))
		remove_proc_entry("faulty", NULL);
}

module_init(faulty_init);
module_exit(faulty_exit);
MODULE_LICENSE("GPL");
