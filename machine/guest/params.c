/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Conversions of module parameters from and to text: kernel/params.c. */

#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/moduleparam.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <asm/page.h>

static DEFINE_MUTEX(param_lock);

void kernel_param_lock(struct module *mod)
{
	mutex_lock(mod ? &mod->param_lock : &param_lock);
}
EXPORT_SYMBOL(kernel_param_lock);

void kernel_param_unlock(struct module *mod)
{
	mutex_unlock(mod ? &mod->param_lock : &param_lock);
}
EXPORT_SYMBOL(kernel_param_unlock);

/* In names, a dash equals an underscore. */
bool parameqn(const char *a, const char *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((a[i] == '-' ? '_' : a[i]) != (b[i] == '-' ? '_' : b[i]))
			return false;
	return true;
}

bool parameq(const char *a, const char *b)
{
	return parameqn(a, b, strlen(a) + 1);
}

/* -- numbers ----------------------------------------------------------------------------------- */

#define PARAM_OF_NUMBERS(name, type, format, parse)                                \
	int param_set_##name(const char *val, const struct kernel_param *kp)       \
	{                                                                          \
		return parse(val, 0, (type *)kp->arg);                             \
	}                                                                          \
	EXPORT_SYMBOL(param_set_##name);                                           \
										   \
	int param_get_##name(char *buffer, const struct kernel_param *kp)          \
	{                                                                          \
		return scnprintf(buffer, PAGE_SIZE, format "\n", *(type *)kp->arg); \
	}                                                                          \
	EXPORT_SYMBOL(param_get_##name);                                           \
										   \
	const struct kernel_param_ops param_ops_##name = {                         \
		.set = param_set_##name,                                           \
		.get = param_get_##name,                                           \
	};                                                                         \
	EXPORT_SYMBOL(param_ops_##name)

PARAM_OF_NUMBERS(byte, unsigned char, "%hhu", kstrtou8);
PARAM_OF_NUMBERS(short, short, "%hi", kstrtos16);
PARAM_OF_NUMBERS(ushort, unsigned short, "%hu", kstrtou16);
PARAM_OF_NUMBERS(int, int, "%i", kstrtoint);
PARAM_OF_NUMBERS(uint, unsigned int, "%u", kstrtouint);
PARAM_OF_NUMBERS(long, long, "%li", kstrtol);
PARAM_OF_NUMBERS(ulong, unsigned long, "%lu", kstrtoul);
PARAM_OF_NUMBERS(ullong, unsigned long long, "%llu", kstrtoull);
PARAM_OF_NUMBERS(hexint, unsigned int, "%#08x", kstrtouint);

int param_set_uint_minmax(const char *val, const struct kernel_param *kp, unsigned int min,
			  unsigned int max)
{
	unsigned int num;
	int err;

	if (!val)
		return -EINVAL;
	err = kstrtouint(val, 0, &num);
	if (err)
		return err;
	if (num < min || num > max)
		return -EINVAL;
	*(unsigned int *)kp->arg = num;
	return 0;
}
EXPORT_SYMBOL_GPL(param_set_uint_minmax);

/* -- booleans ---------------------------------------------------------------------------------- */

int param_set_bool(const char *val, const struct kernel_param *kp)
{
	return kstrtobool(val ?: "1", kp->arg);
}
EXPORT_SYMBOL(param_set_bool);

int param_get_bool(char *buffer, const struct kernel_param *kp)
{
	return sprintf(buffer, "%c\n", *(bool *)kp->arg ? 'Y' : 'N');
}
EXPORT_SYMBOL(param_get_bool);

const struct kernel_param_ops param_ops_bool = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = param_set_bool,
	.get = param_get_bool,
};
EXPORT_SYMBOL(param_ops_bool);

int param_set_bool_enable_only(const char *val, const struct kernel_param *kp)
{
	bool value;
	int err = kstrtobool(val ?: "1", &value);

	if (err)
		return err;
	if (!value && *(bool *)kp->arg)
		return -EROFS;
	*(bool *)kp->arg = value;
	return 0;
}
EXPORT_SYMBOL_GPL(param_set_bool_enable_only);

const struct kernel_param_ops param_ops_bool_enable_only = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = param_set_bool_enable_only,
	.get = param_get_bool,
};
EXPORT_SYMBOL_GPL(param_ops_bool_enable_only);

int param_set_invbool(const char *val, const struct kernel_param *kp)
{
	bool value;
	int err = kstrtobool(val ?: "1", &value);

	if (!err)
		*(bool *)kp->arg = !value;
	return err;
}
EXPORT_SYMBOL(param_set_invbool);

int param_get_invbool(char *buffer, const struct kernel_param *kp)
{
	return sprintf(buffer, "%c\n", *(bool *)kp->arg ? 'N' : 'Y');
}
EXPORT_SYMBOL(param_get_invbool);

const struct kernel_param_ops param_ops_invbool = {
	.set = param_set_invbool,
	.get = param_get_invbool,
};
EXPORT_SYMBOL(param_ops_invbool);

int param_set_bint(const char *val, const struct kernel_param *kp)
{
	bool value;
	int err = kstrtobool(val ?: "1", &value);

	if (!err)
		*(int *)kp->arg = value;
	return err;
}
EXPORT_SYMBOL(param_set_bint);

const struct kernel_param_ops param_ops_bint = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = param_set_bint,
	.get = param_get_int,
};
EXPORT_SYMBOL(param_ops_bint);

/* -- strings ----------------------------------------------------------------------------------- */

#define CHARP_MAX 1024

/* A string that was set and must be freed, unlike the initial value of a parameter. */
struct kmalloced_param {
	struct list_head list;
	char val[];
};

static LIST_HEAD(kmalloced_params);
static DEFINE_SPINLOCK(kmalloced_params_lock);

static char *copy_parameter(const char *val, size_t len)
{
	struct kmalloced_param *p = kmalloc(sizeof(*p) + len + 1, GFP_KERNEL);

	if (!p)
		return NULL;
	memcpy(p->val, val, len + 1);
	spin_lock(&kmalloced_params_lock);
	list_add(&p->list, &kmalloced_params);
	spin_unlock(&kmalloced_params_lock);
	return p->val;
}

static void free_parameter(const char *val)
{
	struct kmalloced_param *p;

	spin_lock(&kmalloced_params_lock);
	list_for_each_entry(p, &kmalloced_params, list) {
		if (p->val == val) {
			list_del(&p->list);
			kfree(p);
			break;
		}
	}
	spin_unlock(&kmalloced_params_lock);
}

int param_set_charp(const char *val, const struct kernel_param *kp)
{
	size_t len = strnlen(val, CHARP_MAX + 1);
	char *copy;

	if (len > CHARP_MAX) {
		pr_err("%s: string parameter too long\n", kp->name);
		return -ENOSPC;
	}
	copy = copy_parameter(val, len);
	if (!copy)
		return -ENOMEM;
	free_parameter(*(char **)kp->arg);
	*(char **)kp->arg = copy;
	return 0;
}
EXPORT_SYMBOL(param_set_charp);

int param_get_charp(char *buffer, const struct kernel_param *kp)
{
	return scnprintf(buffer, PAGE_SIZE, "%s\n", *(char **)kp->arg);
}
EXPORT_SYMBOL(param_get_charp);

void param_free_charp(void *arg)
{
	free_parameter(*(char **)arg);
}
EXPORT_SYMBOL(param_free_charp);

const struct kernel_param_ops param_ops_charp = {
	.set = param_set_charp,
	.get = param_get_charp,
	.free = param_free_charp,
};
EXPORT_SYMBOL(param_ops_charp);

int param_set_copystring(const char *val, const struct kernel_param *kp)
{
	const struct kparam_string *kps = kp->str;

	if (strnlen(val, kps->maxlen) == kps->maxlen) {
		pr_err("%s: string doesn't fit in %u chars.\n", kp->name, kps->maxlen - 1);
		return -ENOSPC;
	}
	strcpy(kps->string, val);
	return 0;
}
EXPORT_SYMBOL(param_set_copystring);

int param_get_string(char *buffer, const struct kernel_param *kp)
{
	return scnprintf(buffer, PAGE_SIZE, "%s\n", kp->str->string);
}
EXPORT_SYMBOL(param_get_string);

const struct kernel_param_ops param_ops_string = {
	.set = param_set_copystring,
	.get = param_get_string,
};
EXPORT_SYMBOL(param_ops_string);

/* -- arrays ------------------------------------------------------------------------------------ */

static unsigned int param_array_len(const struct kparam_array *arr)
{
	return arr->num ? *arr->num : arr->max;
}

/* Parse values separated by commas. Each is NUL-terminated in place while it is parsed. */
static int param_array_set(const char *val, const struct kernel_param *kp)
{
	const struct kparam_array *arr = kp->arr;
	unsigned int unused, *num = arr->num ?: &unused;
	char *at = (char *)val, separator;

	*num = 0;
	do {
		struct kernel_param element = {
			.name = kp->name,
			.mod = kp->mod,
			.level = kp->level,
			.arg = arr->elem + *num * arr->elemsize,
		};
		size_t len = strcspn(at, ",");
		int err;

		if (*num == arr->max) {
			pr_err("%s: can only take %i arguments\n", kp->name, arr->max);
			return -EINVAL;
		}
		separator = at[len];
		at[len] = '\0';
		err = arr->ops->set(at, &element);
		if (err)
			return err;
		at += len + 1;
		(*num)++;
	} while (separator == ',');
	return 0;
}

static int param_array_get(char *buffer, const struct kernel_param *kp)
{
	const struct kparam_array *arr = kp->arr;
	struct kernel_param element = *kp;
	int off = 0;

	for (unsigned int i = 0; i < param_array_len(arr); i++) {
		int n;

		/* Replace the newline behind the previous element. */
		if (i)
			buffer[off - 1] = ',';
		element.arg = arr->elem + arr->elemsize * i;
		n = arr->ops->get(buffer + off, &element);
		if (n < 0)
			return n;
		off += n;
	}
	buffer[off] = '\0';
	return off;
}

static void param_array_free(void *arg)
{
	const struct kparam_array *arr = arg;

	if (!arr->ops->free)
		return;
	for (unsigned int i = 0; i < param_array_len(arr); i++)
		arr->ops->free(arr->elem + arr->elemsize * i);
}

const struct kernel_param_ops param_array_ops = {
	.set = param_array_set,
	.get = param_array_get,
	.free = param_array_free,
};
EXPORT_SYMBOL(param_array_ops);
