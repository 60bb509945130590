// SPDX-License-Identifier: GPL-2.0-or-later
/* A module whose init returns an error, warns, or dies, as a parameter says. */
#include <linux/bug.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>

static char *what = "";
module_param(what, charp, 0644);
static int number = 5;
module_param(number, int, 0600);
static bool flag;
module_param(flag, bool, 0444);
static char *word = "word";
module_param(word, charp, 0444);
static unsigned char small;
module_param(small, byte, 0644);
static short little = -1;
module_param(little, short, 0644);
static ulong large = 1;
module_param(large, ulong, 0644);
static bool inverted;
module_param(inverted, invbool, 0644);
static int list[3] = { 1, 2, 3 };
static int listed;
module_param_array(list, int, &listed, 0644);
static int *volatile nowhere = (int *)8;
static char letters[8] = "abc";
module_param_string(letters, letters, sizeof(letters), 0644);

static int __init misbehaves_init(void)
{
	int ret = 0;

	if (kstrtoint(what, 0, &ret) == 0)
		return ret;
	if (!strcmp(what, "null"))
		*nowhere = 1;
	if (!strcmp(what, "text"))
		*(volatile char *)misbehaves_init = 0;
	if (!strcmp(what, "bug"))
		BUG();
	if (!strcmp(what, "warn"))
		WARN(1, "misbehaves: a warning with a number, %d\n", number);
	if (!strcmp(what, "once"))
		WARN_ON_ONCE(number);
	if (!strcmp(what, "levels")) {
		pr_emerg("emerg\n");
		pr_alert("alert\n");
		pr_crit("crit\n");
		pr_err("err\n");
		pr_warn("warning\n");
		pr_notice("notice\n");
		pr_info("info\n");
		printk("no level\n");
		pr_info("no newline");
		pr_info("two\nlines\n");
		pr_info("a line ");
		pr_cont("goes ");
		pr_cont("on\n");
		pr_info("%s|%5d|%-5d|%05d|%x|%#x|%c|%%|%5s|%-5s|%.2s\n", "text", 42, 42, 42, 255, 255, 'c', "ab", "ab", "abcd");
		pr_info("%pS %ps\n", strcmp, strcmp);
		pr_info("%*ph %pe %pM\n", 4, "\1\2\3\4", ERR_PTR(-ENOENT), "\1\2\3\4\5\6");
	}
	return 0;
}

static void __exit misbehaves_exit(void)
{
}

module_init(misbehaves_init);
module_exit(misbehaves_exit);
MODULE_LICENSE("GPL");
