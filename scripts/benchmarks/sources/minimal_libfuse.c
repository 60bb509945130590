// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The reference program in C: the least that libfuse needs to serve the same files, with one thread.
 * minimal_libfuse DIRECTORY MOUNTPOINT: the directory is read once, and its files are those of the mount.
 */
#define FUSE_USE_VERSION 35
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct node {
	char *name;
	struct stat st;
	char *data;
	size_t size;
	struct node *child, *next;
};

#define MAX_NODES 65536
static struct node *nodes[MAX_NODES];
static fuse_ino_t count;

static struct node *load(int at, const char *path, const char *name)
{
	struct node *node = calloc(1, sizeof(*node)), **end = &node->child;
	struct dirent *entry;

	node->name = strdup(name);
	if (fstatat(at, path, &node->st, AT_SYMLINK_NOFOLLOW) || ++count == MAX_NODES)
		abort();
	node->st.st_ino = count;
	nodes[count] = node;
	if (S_ISDIR(node->st.st_mode)) {
		int fd = openat(at, path, O_RDONLY | O_DIRECTORY);
		DIR *dir = fdopendir(fd);

		while ((entry = readdir(dir)))
			if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
				*end = load(fd, entry->d_name, entry->d_name);
				end = &(*end)->next;
			}
		closedir(dir);
	} else if (S_ISLNK(node->st.st_mode)) {
		node->data = calloc(1, 4096);
		if (readlinkat(at, path, node->data, 4095) < 0)
			abort();
	} else {
		int fd = openat(at, path, O_RDONLY);
		ssize_t got;

		node->data = malloc(node->st.st_size + 1);
		got = read(fd, node->data, node->st.st_size);
		node->size = got < 0 ? 0 : got;
		close(fd);
	}
	return node;
}

static struct fuse_entry_param entry_of(struct node *node)
{
	return (struct fuse_entry_param){
		.ino = node->st.st_ino, .attr = node->st, .attr_timeout = 1.0, .entry_timeout = 1.0,
	};
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *node;

	for (node = nodes[parent]->child; node; node = node->next)
		if (!strcmp(node->name, name)) {
			struct fuse_entry_param entry = entry_of(node);

			fuse_reply_entry(req, &entry);
			return;
		}
	fuse_reply_err(req, ENOENT);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_attr(req, &nodes[ino]->st, 1.0);
}

static void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
	fuse_reply_readlink(req, nodes[ino]->data);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct node *node = nodes[ino];
	size_t left = (size_t)offset < node->size ? node->size - offset : 0;

	fuse_reply_buf(req, node->data + offset, size < left ? size : left);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	fuse_reply_write(req, size);
}

static void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	char *buffer = malloc(size);
	size_t used = 0;
	struct node *node;
	off_t i = 0;

	for (node = nodes[ino]->child; node; node = node->next) {
		struct fuse_entry_param entry = entry_of(node);
		size_t needed;

		if (i++ < offset)
			continue;
		needed = fuse_add_direntry_plus(req, buffer + used, size - used, node->name, &entry, i);
		if (needed > size - used)
			break;
		used += needed;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

static void do_init(void *data, struct fuse_conn_info *conn)
{
	conn->want &= ~FUSE_CAP_READDIRPLUS_AUTO;
}

static const struct fuse_lowlevel_ops operations = {
	.init = do_init,
	.lookup = do_lookup,
	.getattr = do_getattr,
	.readlink = do_readlink,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.readdirplus = do_readdirplus,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session;

	load(AT_FDCWD, argv[1], "");
	fuse_opt_add_arg(&args, argv[0]);
	fuse_opt_add_arg(&args, "-ofsname=reference,default_permissions");
	session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, argv[2]))
		return 1;
	fuse_session_loop(session);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return 0;
}
