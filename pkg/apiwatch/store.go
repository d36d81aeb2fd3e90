package apiwatch

import (
	"fmt"
	"strconv"

	"k8s.io/client-go/tools/cache"
)

// Store is the store of a reflector of one kind of object: it hands them on, and keeps
// none. Whoever gets them has the lock that they need.
type Store[T any] struct {
	Set  func(T) // an object, as it is now
	Drop func(T) // one that is no more
	// Replaced is given all objects: there are no others.
	Replaced func([]T)
	// Strip returns an object with what Set looks at, so that little is kept while a list is
	// streamed; nil for all of it.
	Strip cache.TransformFunc
}

// Several is a store that tells several others, which all may hold what it tells them.
func Several[T any](stores []Store[T]) Store[T] {
	return Store[T]{
		Set: func(o T) {
			for _, s := range stores {
				s.Set(o)
			}
		},
		Drop: func(o T) {
			for _, s := range stores {
				s.Drop(o)
			}
		},
		Replaced: func(all []T) {
			for _, s := range stores {
				s.Replaced(all)
			}
		},
	}
}

var _ cache.TransformingStore = Store[any]{}

func with[T any](object any, f func(T)) error {
	o, is := object.(T)
	if !is {
		return fmt.Errorf("noting an object: it is a %T and not a %T", object, o)
	}
	f(o)
	return nil
}

// Add notes an object, as it is now.
func (s Store[T]) Add(object any) error { return with(object, s.Set) }

// Update is Add.
func (s Store[T]) Update(object any) error { return with(object, s.Set) }

// Delete forgets an object.
func (s Store[T]) Delete(object any) error { return with(object, s.Drop) }

// Replace notes all objects, and forgets the others.
func (s Store[T]) Replace(objects []any, _ string) error {
	all := make([]T, len(objects))
	for i, object := range objects {
		if err := with(object, func(o T) { all[i] = o }); err != nil {
			return err
		}
	}
	s.Replaced(all)
	return nil
}

// Resync does nothing: what is known has been told.
func (s Store[T]) Resync() error { return nil }

// Transformer implements [cache.TransformingStore].
func (s Store[T]) Transformer() cache.TransformFunc { return s.Strip }

// Older compares the resourceVersions of an object: they are numbers, and the API server
// counts up.
func Older(version, than string) bool {
	a, errA := strconv.ParseUint(version, 10, 64)
	b, errB := strconv.ParseUint(than, 10, 64)
	return errA == nil && errB == nil && a < b
}
