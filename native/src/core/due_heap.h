/*
 * A binary heap of what is due, the earliest first.
 *
 * An entry is embedded in whatever it stands for and knows its place, so that
 * it can be moved or removed in O(log n) without a search.  Plain C without
 * any server header: the owner brings the array and says how to grow it.
 */
#ifndef CLOCKWORK_CORE_DUE_HEAP_H
#define CLOCKWORK_CORE_DUE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct DueEntry
{
	int64_t		key;			/* smaller comes first */
	int64_t		tie;			/* among equal keys, smaller comes first */
	size_t		place;			/* 1-based index in the heap; 0 = not in it */
} DueEntry;

typedef struct DueHeap
{
	DueEntry  **entries;		/* entries[1] is the earliest */
	size_t		count;
	size_t		capacity;

	/* Returns memory for `bytes`, keeping what `old` holds; may not return NULL. */
	void	   *(*resize) (void *old, size_t bytes);
} DueHeap;

extern void clockwork_due_heap_init(DueHeap *heap, void *(*resize) (void *, size_t));

/* Put an entry in, or move it to where its key belongs now. */
extern void clockwork_due_heap_set(DueHeap *heap, DueEntry *entry, int64_t key, int64_t tie);

/* Take an entry out; nothing happens if it is not in. */
extern void clockwork_due_heap_remove(DueHeap *heap, DueEntry *entry);

/* The earliest entry, left in place; NULL if the heap is empty. */
extern DueEntry *clockwork_due_heap_first(const DueHeap *heap);

#endif							/* CLOCKWORK_CORE_DUE_HEAP_H */
