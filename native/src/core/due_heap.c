/*
 * A binary heap of what is due: the classic array form, 1-based, so that the
 * parent of place p is p / 2.
 */
#include "due_heap.h"

#define FIRST_CAPACITY 64

static bool
before(const DueEntry *a, const DueEntry *b)
{
	if (a->key != b->key)
		return a->key < b->key;
	return a->tie < b->tie;
}

static void
put(DueHeap *heap, size_t place, DueEntry *entry)
{
	heap->entries[place] = entry;
	entry->place = place;
}

static void
rise(DueHeap *heap, DueEntry *entry)
{
	size_t		place = entry->place;

	while (place > 1 && before(entry, heap->entries[place / 2]))
	{
		put(heap, place, heap->entries[place / 2]);
		place /= 2;
	}
	put(heap, place, entry);
}

static void
sink(DueHeap *heap, DueEntry *entry)
{
	size_t		place = entry->place;

	for (;;)
	{
		size_t		child = place * 2;

		if (child > heap->count)
			break;
		if (child < heap->count && before(heap->entries[child + 1], heap->entries[child]))
			child++;
		if (!before(heap->entries[child], entry))
			break;
		put(heap, place, heap->entries[child]);
		place = child;
	}
	put(heap, place, entry);
}

void
clockwork_due_heap_init(DueHeap *heap, void *(*resize) (void *, size_t))
{
	heap->entries = NULL;
	heap->count = 0;
	heap->capacity = 0;
	heap->resize = resize;
}

void
clockwork_due_heap_set(DueHeap *heap, DueEntry *entry, int64_t key, int64_t tie)
{
	entry->key = key;
	entry->tie = tie;

	if (entry->place == 0)
	{
		if (heap->count + 1 >= heap->capacity)
		{
			size_t		capacity = heap->capacity ? heap->capacity * 2 : FIRST_CAPACITY;

			heap->entries = heap->resize(heap->entries, capacity * sizeof(DueEntry *));
			heap->capacity = capacity;
		}
		put(heap, ++heap->count, entry);
	}
	rise(heap, entry);
	sink(heap, entry);
}

void
clockwork_due_heap_remove(DueHeap *heap, DueEntry *entry)
{
	DueEntry   *last;
	size_t		place = entry->place;

	if (place == 0)
		return;
	entry->place = 0;
	last = heap->entries[heap->count--];
	if (last == entry)
		return;
	put(heap, place, last);
	rise(heap, last);
	sink(heap, last);
}

DueEntry *
clockwork_due_heap_first(const DueHeap *heap)
{
	return heap->count > 0 ? heap->entries[1] : NULL;
}
