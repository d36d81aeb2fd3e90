package apiwatch

import (
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// readNode reads of a Node in protobuf what flatnet looks at:
//
//	metadata  name, namespace, uid, resourceVersion, creationTimestamp, deletionTimestamp, labels, and of the annotations those of bookmarks
//	spec      podCIDR, podCIDRs, unschedulable, taints
//	status    addresses
//
// Everything else is left empty. A Node of a busy cluster has 14 kB and more, most of
// them names of images and who manages which field, and the kubelet of each writes
// all of it anew every five minutes: to decode that costs more than all else that
// flatnetd does while nothing happens.
//
// The numbers are those of generated.proto of k8s.io/api/core/v1 and of
// k8s.io/apimachinery/pkg/apis/meta/v1, which never change.
func readNode(message []byte) (*v1.Node, error) {
	n := &v1.Node{}
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			return readMetadata(f.bytes, &n.ObjectMeta)
		case 2:
			return readNodeSpec(f.bytes, &n.Spec)
		case 3:
			return readNodeStatus(f.bytes, &n.Status)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("decoding a Node: %w", err)
	}
	return n, nil
}

func readMetadata(message []byte, m *metav1.ObjectMeta) error {
	return fields(message, func(f field) (err error) {
		switch f.number {
		case 1:
			m.Name = string(f.bytes)
		case 3:
			m.Namespace = string(f.bytes)
		case 5:
			m.UID = types.UID(f.bytes)
		case 6:
			m.ResourceVersion = string(f.bytes)
		case 8:
			m.CreationTimestamp, err = readTime(f.bytes)
		case 9:
			m.DeletionTimestamp = new(metav1.Time)
			*m.DeletionTimestamp, err = readTime(f.bytes)
		case 11:
			err = readEntry(f.bytes, &m.Labels, func([]byte) bool { return true })
		case 12:
			err = readEntry(f.bytes, &m.Annotations, func(key []byte) bool { return string(key) == metav1.InitialEventsAnnotationKey })
		}
		return err
	})
}

// readEntry reads an entry of a map of texts, if its key is wanted.
func readEntry(message []byte, all *map[string]string, wanted func(key []byte) bool) error {
	var key, value []byte
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			key = f.bytes
		case 2:
			value = f.bytes
		}
		return nil
	})
	if err != nil || !wanted(key) {
		return err
	}
	if *all == nil {
		*all = make(map[string]string)
	}
	(*all)[string(key)] = string(value)
	return nil
}

func readTime(message []byte) (metav1.Time, error) {
	var seconds, nanoseconds int64
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			seconds = int64(f.value)
		case 2:
			nanoseconds = int64(int32(f.value))
		}
		return nil
	})
	if seconds == 0 && nanoseconds == 0 {
		return metav1.Time{}, err // as it is written where there is none
	}
	return metav1.Time{Time: time.Unix(seconds, nanoseconds).Local()}, err
}

func readNodeSpec(message []byte, s *v1.NodeSpec) error {
	return fields(message, func(f field) (err error) {
		switch f.number {
		case 1:
			s.PodCIDR = string(f.bytes)
		case 4:
			s.Unschedulable = f.value != 0
		case 5:
			var t v1.Taint
			t, err = readTaint(f.bytes)
			s.Taints = append(s.Taints, t)
		case 7:
			s.PodCIDRs = append(s.PodCIDRs, string(f.bytes))
		}
		return err
	})
}

func readTaint(message []byte) (t v1.Taint, err error) {
	err = fields(message, func(f field) (err error) {
		switch f.number {
		case 1:
			t.Key = string(f.bytes)
		case 2:
			t.Value = string(f.bytes)
		case 3:
			t.Effect = v1.TaintEffect(f.bytes)
		case 4:
			t.TimeAdded = new(metav1.Time)
			*t.TimeAdded, err = readTime(f.bytes)
		}
		return err
	})
	return t, err
}

func readNodeStatus(message []byte, s *v1.NodeStatus) error {
	return fields(message, func(f field) error {
		if f.number != 5 {
			return nil
		}
		var a v1.NodeAddress
		err := fields(f.bytes, func(f field) error {
			switch f.number {
			case 1:
				a.Type = v1.NodeAddressType(f.bytes)
			case 2:
				a.Address = string(f.bytes)
			}
			return nil
		})
		s.Addresses = append(s.Addresses, a)
		return err
	})
}

// magic begins every answer of the API server in protobuf.
const magic = "k8s\x00"

// readEnvelope returns the kind of an object in protobuf and its message
// (k8s.io/apimachinery/pkg/runtime.Unknown).
func readEnvelope(object []byte) (kind string, message []byte, err error) {
	if len(object) < len(magic) || string(object[:len(magic)]) != magic {
		return "", nil, errors.New("an object is not in the protobuf of Kubernetes")
	}
	err = fields(object[len(magic):], func(f field) (err error) {
		switch f.number {
		case 1:
			kind, err = readKind(f.bytes)
		case 2:
			message = f.bytes
		}
		return err
	})
	return kind, message, err
}

// readKind reads a runtime.TypeMeta.
func readKind(message []byte) (kind string, err error) {
	err = fields(message, func(f field) error {
		if f.number == 2 {
			kind = string(f.bytes)
		}
		return nil
	})
	return kind, err
}
