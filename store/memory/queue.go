package memory

import "container/heap"

// timer gives a thing a place in a queue.
type timer struct {
	due   int64 // microseconds since 1970
	order uint64
	place int
}

func (t *timer) clock() *timer { return t }

// queue holds things in the order in which they fall due. It is a heap whose members know their place.
type queue[T interface{ clock() *timer }] []T

// add puts x into the queue.
func (q *queue[T]) add(x T, due int64) {
	x.clock().due = due
	heap.Push((*heaped[T])(q), x)
}

// move changes when x, which is in the queue, is due.
func (q *queue[T]) move(x T, due int64) {
	if t := x.clock(); t.due != due {
		t.due = due
		heap.Fix((*heaped[T])(q), t.place)
	}
}

// drop takes x, which is in the queue, out of it.
func (q *queue[T]) drop(x T) { heap.Remove((*heaped[T])(q), x.clock().place) }

// until returns what is due first, if that is at the given time or before.
func (q *queue[T]) until(at int64) (T, bool) {
	if len(*q) == 0 || (*q)[0].clock().due > at {
		var none T
		return none, false
	}
	return (*q)[0], true
}

// heaped is what container/heap sees of a queue.
type heaped[T interface{ clock() *timer }] []T

func (h heaped[T]) Len() int { return len(h) }

func (h heaped[T]) Less(i, j int) bool {
	a, b := h[i].clock(), h[j].clock()
	return a.due < b.due || a.due == b.due && a.order < b.order
}

func (h heaped[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].clock().place, h[j].clock().place = i, j
}

func (h *heaped[T]) Push(x any) {
	item := x.(T)
	item.clock().place = len(*h)
	*h = append(*h, item)
}

func (h *heaped[T]) Pop() any {
	last := len(*h) - 1
	item := (*h)[last]
	var none T
	(*h)[last] = none
	*h = (*h)[:last]
	return item
}
