package health

import "container/heap"

// queue has the ways by when they are due. It is a [heap.Interface].
type queue []*way

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements [heap.Interface].
func (q *queue) Push(x any) {
	w := x.(*way)
	w.place = len(*q)
	*q = append(*q, w)
}

// Pop implements [heap.Interface].
func (q *queue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return w
}

// moved puts a way where its time is now.
func (q *queue) moved(w *way) { heap.Fix(q, w.place) }
