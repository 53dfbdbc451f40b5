package memory

import "iter"

// timer is embedded in what is put into a queue.
type timer struct{ place int } // in the queue

func (t *timer) clock() *timer { return t }

type timed interface{ clock() *timer }

// queue holds items in the order in which they become due. It is a binary heap whose items know their place, so that
// they can be removed without a search. The times are in the heap itself, so that comparisons do not touch the items.
type queue[T timed] []slot[T]

type slot[T timed] struct {
	due   int64  // microseconds since 1970
	order uint64 // of items that are due at the same time
	item  T
}

// add adds x, after those that are due at the same time and have a lower order.
func (q *queue[T]) add(x T, due int64, order uint64) {
	*q = append(*q, slot[T]{})
	q.place(len(*q)-1, slot[T]{due, order, x})
}

// move changes when x, which is in the queue, is due.
func (q *queue[T]) move(x T, due int64) {
	place := x.clock().place
	if s := (*q)[place]; s.due != due {
		s.due = due
		q.place(place, s)
	}
}

// drop removes x, which is in the queue.
func (q *queue[T]) drop(x T) {
	place, last := x.clock().place, len(*q)-1
	s := (*q)[last]
	(*q)[last] = slot[T]{}
	*q = (*q)[:last]
	if place != last {
		q.place(place, s)
	}
}

// until returns the item that is due first, if it is due at the given time or before.
func (q *queue[T]) until(at int64) (T, bool) {
	if len(*q) == 0 || (*q)[0].due > at {
		var none T
		return none, false
	}
	return (*q)[0].item, true
}

// upTo returns all items that are due at the given time or before, in no particular order. In a heap no item is due
// before its parent, so the children of an item that is not due need not be visited.
func (q queue[T]) upTo(at int64) iter.Seq[T] {
	return func(yield func(T) bool) {
		var walk func(i int) bool
		walk = func(i int) bool {
			if i >= len(q) || q[i].due > at {
				return true
			}
			return yield(q[i].item) && walk(2*i+1) && walk(2*i+2)
		}
		walk(0)
	}
}

// place moves the free place i up or down to where s belongs, and puts s there.
func (q *queue[T]) place(i int, s slot[T]) {
	h := *q
	for i > 0 && s.before(h[(i-1)/2]) {
		h.put(i, h[(i-1)/2])
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if child+1 < len(h) && h[child+1].before(h[child]) {
			child++
		}
		if child >= len(h) || !h[child].before(s) {
			break
		}
		h.put(i, h[child])
		i = child
	}
	h.put(i, s)
}

func (q queue[T]) put(i int, s slot[T]) {
	q[i] = s
	s.item.clock().place = i
}

func (s slot[T]) before(other slot[T]) bool {
	return s.due < other.due || s.due == other.due && s.order < other.order
}
