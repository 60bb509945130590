/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_RCULIST_H
#define _LINUX_RCULIST_H

#include <linux/list.h>
#include <linux/rcupdate.h>

#define list_next_rcu(list) (*((struct list_head __rcu **)(&(list)->next)))

static inline void list_add_rcu(struct list_head *entry, struct list_head *head)
{
	entry->next = head->next;
	entry->prev = head;
	rcu_assign_pointer(head->next, entry);
	entry->next->prev = entry;
}

static inline void list_add_tail_rcu(struct list_head *entry, struct list_head *head)
{
	entry->next = head;
	entry->prev = head->prev;
	rcu_assign_pointer(head->prev->next, entry);
	head->prev = entry;
}

/* next is kept, as a reader may be at the entry. */
static inline void list_del_rcu(struct list_head *entry)
{
	__list_del_entry(entry);
	entry->prev = LIST_POISON2;
}

static inline void hlist_del_rcu(struct hlist_node *n)
{
	__hlist_del(n);
	n->pprev = LIST_POISON2;
}

static inline void hlist_del_init_rcu(struct hlist_node *n)
{
	if (!hlist_unhashed(n)) {
		__hlist_del(n);
		n->pprev = NULL;
	}
}

static inline void hlist_add_head_rcu(struct hlist_node *n, struct hlist_head *h)
{
	struct hlist_node *first = h->first;

	n->next = first;
	n->pprev = &h->first;
	rcu_assign_pointer(h->first, n);
	if (first)
		first->pprev = &n->next;
}

#define list_entry_rcu(ptr, type, member) container_of(READ_ONCE(ptr), type, member)
#define list_first_or_null_rcu(ptr, type, member)                                   \
	({                                                                          \
		struct list_head *__ptr = (ptr);                                    \
		struct list_head *__next = READ_ONCE(__ptr->next);                  \
		__ptr != __next ? list_entry_rcu(__next, type, member) : NULL;      \
	})
#define list_for_each_entry_rcu(pos, head, member, cond...)                         \
	for (pos = list_entry_rcu((head)->next, typeof(*pos), member);              \
	     &pos->member != (head);                                                \
	     pos = list_entry_rcu(pos->member.next, typeof(*pos), member))
#define hlist_for_each_entry_rcu(pos, head, member, cond...)                              \
	for (pos = hlist_entry_safe(READ_ONCE((head)->first), typeof(*(pos)), member);    \
	     pos;                                                                         \
	     pos = hlist_entry_safe(READ_ONCE((pos)->member.next), typeof(*(pos)), member))

#endif
