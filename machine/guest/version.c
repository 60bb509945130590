/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The name and version of the kernel: init/version.c. */

#include <linux/export.h>
#include <linux/printk.h>
#include <linux/stringify.h>
#include <linux/utsname.h>
#include <generated/utsrelease.h>

#define UTS_VERSION "#1 PREEMPT"
#define COMPILED_BY "klpfs@klpfs"
/* The output of --version, which the build defines. */
#define COMPILER CC_VERSION_TEXT ", " LD_VERSION_TEXT

struct uts_namespace init_uts_ns = {
	.name = {
		.sysname = "Linux",
		.nodename = CONFIG_DEFAULT_HOSTNAME,
		.release = UTS_RELEASE,
		.version = UTS_VERSION,
		.machine = "x86_64",
		.domainname = "(none)",
	},
};
EXPORT_SYMBOL_GPL(init_uts_ns);

const char linux_banner[] =
	"Linux version " UTS_RELEASE " (" COMPILED_BY ") (" COMPILER ") " UTS_VERSION "\n";
/* The format of /proc/version, for the values of uname. */
const char linux_proc_banner[] =
	"%s version %s (" COMPILED_BY ") (" COMPILER ") %s\n";
