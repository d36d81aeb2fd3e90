package apiwatch

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// labelSets has objects with the same labels share them: a thousand pods of a Deployment
// have one map instead of a thousand, of half a kilobyte each.
type labelSets struct {
	sets map[string]map[string]string // by what is in them
	key  []byte
}

// mostSets is how many are remembered. Of a cluster whose pods all have labels of their
// own, as a StatefulSet's have, it would be all of them, for as long as they are watched.
const mostSets = 20_000

// one returns labels that are the same.
func (l *labelSets) one(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	l.key = l.key[:0]
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		l.key = append(append(append(append(l.key, name...), 0), labels[name]...), 0)
	}
	if known, is := l.sets[string(l.key)]; is {
		return known
	}
	if l.sets == nil || len(l.sets) >= mostSets {
		l.sets = make(map[string]map[string]string)
	}
	own := make(map[string]string, len(labels))
	for name, value := range labels {
		own[same(name)] = same(value)
	}
	l.sets[string(l.key)] = own
	return own
}

// little returns of an object's metadata what flatnet looks at.
func little(m *metav1.ObjectMeta) metav1.ObjectMeta {
	few := metav1.ObjectMeta{
		Namespace: same(m.Namespace), Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp, Labels: m.Labels,
	}
	if end, is := m.Annotations[metav1.InitialEventsAnnotationKey]; is {
		few.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: end}
	}
	return few
}
