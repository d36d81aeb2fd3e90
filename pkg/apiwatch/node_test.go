package apiwatch

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// looked returns a Node with what readNode is to read of it, and nothing else.
func looked(n *v1.Node) *v1.Node {
	few := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: n.Name, Namespace: n.Namespace, UID: n.UID, ResourceVersion: n.ResourceVersion,
			CreationTimestamp: n.CreationTimestamp, DeletionTimestamp: n.DeletionTimestamp, Labels: n.Labels,
		},
		Spec:   v1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs, Unschedulable: n.Spec.Unschedulable, Taints: n.Spec.Taints},
		Status: v1.NodeStatus{Addresses: n.Status.Addresses},
	}
	if end, is := n.Annotations[metav1.InitialEventsAnnotationKey]; is {
		few.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: end}
	}
	return few
}

// randomNode returns a Node of which each field is there or not, by chance.
func randomNode(random *rand.Rand) *v1.Node {
	maybe := func() bool { return random.IntN(2) == 0 }
	text := func() string { return strings.Repeat(string(rune('a'+random.IntN(26))), random.IntN(300)) }
	texts := func() (all []string) {
		for range random.IntN(4) {
			all = append(all, text())
		}
		return all
	}
	moment := func() metav1.Time { return metav1.Unix(random.Int64N(4e9)-2e9, random.Int64N(1e9)) }
	later := func() *metav1.Time { t := moment(); return &t }
	entries := func() map[string]string {
		all := map[string]string{}
		for i := range random.IntN(5) {
			all[fmt.Sprint("key", i)] = text()
		}
		if len(all) == 0 {
			return nil // as none is read
		}
		return all
	}
	n := &v1.Node{}
	for _, set := range []func(){
		func() { n.Name = text() },
		func() { n.GenerateName, n.Namespace = text(), text() },
		func() { n.UID = types.UID(text()) },
		func() { n.ResourceVersion = text() },
		func() { n.Generation = random.Int64() },
		func() { n.CreationTimestamp = moment() },
		func() { n.DeletionTimestamp = later() },
		func() { seconds := random.Int64(); n.DeletionGracePeriodSeconds = &seconds },
		func() { n.Labels = entries() },
		func() { n.Annotations = entries() },
		func() {
			n.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: text(), "other": text()}
		},
		func() { n.OwnerReferences = []metav1.OwnerReference{{Kind: text(), UID: "7"}} },
		func() { n.Finalizers = texts() },
		func() {
			n.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: text(), FieldsV1: &metav1.FieldsV1{Raw: []byte(text())}}}
		},
		func() { n.Spec.PodCIDR = text() },
		func() { n.Spec.PodCIDRs = texts() },
		func() { n.Spec.ProviderID, n.Spec.DoNotUseExternalID = text(), text() },
		func() { n.Spec.Unschedulable = true },
		func() {
			for range 1 + random.IntN(3) {
				t := v1.Taint{Key: text(), Value: text(), Effect: v1.TaintEffectNoExecute}
				if maybe() {
					t.TimeAdded = later()
				}
				n.Spec.Taints = append(n.Spec.Taints, t)
			}
		},
		func() {
		},
		func() { n.Status.Capacity = v1.ResourceList{v1.ResourceCPU: quantity.MustParse("8")} },
		func() { n.Status.Phase = v1.NodeRunning },
		func() {
			n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, LastHeartbeatTime: moment(), Message: text()}}
		},
		func() {
			for range 1 + random.IntN(5) {
				n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: text()})
			}
		},
		func() { n.Status.NodeInfo = v1.NodeSystemInfo{MachineID: text(), KernelVersion: text()} },
		func() {
			for _, name := range texts() {
				n.Status.Images = append(n.Status.Images, v1.ContainerImage{Names: []string{name}, SizeBytes: random.Int64()})
			}
		},
		func() { n.Status.Features = &v1.NodeFeatures{SupplementalGroupsPolicy: new(bool)} },
	} {
		if maybe() {
			set()
		}
	}
	return n
}

func marshal(t testing.TB, n *v1.Node) []byte {
	t.Helper()
	message, err := n.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// What is read of a Node is what Kubernetes' own decoder finds there.
func TestReadNodeRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 9))
	for range 3000 {
		message := marshal(t, randomNode(random))
		var full v1.Node
		if err := full.Unmarshal(message); err != nil {
			t.Fatal(err)
		}
		got, err := readNode(message)
		if err != nil {
			t.Fatalf("%v: of %v", err, full)
		}
		if want := looked(&full); !reflect.DeepEqual(got, want) {
			t.Fatalf("got\n%+v\nwant\n%+v", got, want)
		}
	}
}

// A message that ends too early is refused, or is one that does end there.
func TestReadNodeCut(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 11))
	for range 30 {
		message := marshal(t, randomNode(random))
		for end := range message {
			var full v1.Node
			wantErr := full.Unmarshal(message[:end])
			got, err := readNode(message[:end])
			// A cut that is in what is skipped is not seen, and need not be.
			if err == nil && wantErr == nil && !reflect.DeepEqual(got, looked(&full)) {
				t.Fatalf("the first %d bytes of %d are read as %+v, want %+v", end, len(message), got, looked(&full))
			}
			if err != nil && wantErr == nil {
				t.Fatalf("the first %d bytes of %d are refused: %v", end, len(message), err)
			}
		}
	}
}

func FuzzReadNode(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 13))
	for range 20 {
		f.Add(marshal(f, randomNode(random)))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var full v1.Node
		got, err := readNode(message)
		if full.Unmarshal(message) == nil && err == nil && !reflect.DeepEqual(got, looked(&full)) {
			t.Errorf("got\n%+v\nwant\n%+v", got, looked(&full))
		}
	})
}

// A Node of 14 kB, as those of busy clusters are: what flatnet needs, and all of it.
func BenchmarkReadNode(b *testing.B) {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "7", CreationTimestamp: metav1.Time{Time: time.Unix(1.7e9, 0)}}}
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "172.30.0.1"}}
	for i := range 50 {
		n.Status.Images = append(n.Status.Images, v1.ContainerImage{Names: []string{fmt.Sprintf("registry.example.org/team/application-%d@sha256:%064d", i, i), fmt.Sprintf("registry.example.org/team/application-%d:v1", i)}})
	}
	n.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: &metav1.FieldsV1{Raw: []byte(strings.Repeat(`"f:lastHeartbeatTime":{},`, 160))}}}
	message := marshal(b, n)
	b.Run("needed", func(b *testing.B) {
		for b.Loop() {
			if _, err := readNode(message); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			var full v1.Node
			if err := full.Unmarshal(message); err != nil {
				b.Fatal(err)
			}
		}
	})
}
