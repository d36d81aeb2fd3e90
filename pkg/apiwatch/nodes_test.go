package apiwatch

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// inBothFormats runs a test with an API server that answers in protobuf, and with
// one that answers in JSON.
func inBothFormats(t *testing.T, test func(t *testing.T, s *apiserver.Server, nodes Resource)) {
	for _, protobuf := range []bool{true, false} {
		t.Run(fmt.Sprintf("protobuf=%v", protobuf), func(t *testing.T) {
			s := apiserver.New()
			s.Protobuf, s.Streams = protobuf, true
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s.Serve(listener)
			t.Cleanup(s.Stop)
			client, err := NewClientFor(&rest.Config{Host: "http://" + listener.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			test(t, s, client.Nodes())
		})
	}
}

// busyNode has what matters and much that does not.
func busyNode(i int) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), Labels: map[string]string{v1.LabelTopologyZone: "a"}}}
	n.Spec.PodCIDRs = []string{fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)}
	n.Spec.Taints = []v1.Taint{{Key: "node.kubernetes.io/network-unavailable", Effect: v1.TaintEffectNoSchedule}}
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: fmt.Sprintf("172.30.%d.%d", i>>8, i&255)}}
	for image := range 50 {
		n.Status.Images = append(n.Status.Images, v1.ContainerImage{Names: []string{fmt.Sprintf("registry.example.org/application-%d@sha256:%0200d", image, i)}})
	}
	return n
}

// described is what the tests look at.
func described(o apiruntime.Object) string {
	n, is := o.(*v1.Node)
	if !is {
		return fmt.Sprintf("%T", o)
	}
	text := fmt.Sprint(n.Name, " ", n.ResourceVersion, " ", n.Labels, " ", n.Spec.PodCIDRs)
	for _, t := range n.Spec.Taints {
		text += " " + t.ToString()
	}
	for _, a := range n.Status.Addresses {
		text += " " + a.Address
	}
	return text
}

func TestListNodes(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s *apiserver.Server, nodes Resource) {
		for i := 1; i <= 3; i++ {
			s.Put(busyNode(i))
		}
		list, err := nodes.list(t.Context(), metav1.ListOptions{ResourceVersion: "0", Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		about, err := meta.ListAccessor(list)
		if err != nil || about.GetResourceVersion() != "13" {
			t.Errorf("the list is of version %v, %v", about, err)
		}
		items, err := meta.ExtractListWithAlloc(list)
		if err != nil || len(items) != 3 {
			t.Fatalf("listed are %v, %v", items, err)
		}
		all := ""
		for _, o := range items {
			all += described(o) + "\n"
		}
		for i := 1; i <= 3; i++ {
			want := fmt.Sprintf("n%d %d map[topology.kubernetes.io/zone:a] [10.0.%d.0/24] node.kubernetes.io/network-unavailable:NoSchedule 172.30.0.%d\n", i, 10+i, i, i)
			if !strings.Contains(all, want) {
				t.Errorf("listed are\n%swant\n%s", all, want)
			}
		}
		s.Refuse(&metav1.Status{Code: 403, Reason: metav1.StatusReasonForbidden, Message: "no"})
		if _, err := nodes.list(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("a refusal is %v", err)
		}
	})
}

func TestWatchNodes(t *testing.T) {
	inBothFormats(t, func(t *testing.T, s *apiserver.Server, nodes Resource) {
		s.Put(busyNode(1))
		initial := true
		w, err := nodes.watch(t.Context(), metav1.ListOptions{SendInitialEvents: &initial, AllowWatchBookmarks: true})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		s.Put(busyNode(2))
		s.Remove(busyNode(1))
		for _, want := range []string{
			"ADDED n1 11 map[topology.kubernetes.io/zone:a] [10.0.1.0/24] node.kubernetes.io/network-unavailable:NoSchedule 172.30.0.1",
			"BOOKMARK  11 map[] []",
			"ADDED n2 12 map[topology.kubernetes.io/zone:a] [10.0.2.0/24] node.kubernetes.io/network-unavailable:NoSchedule 172.30.0.2",
			"DELETED n1 13 map[topology.kubernetes.io/zone:a] [10.0.1.0/24] node.kubernetes.io/network-unavailable:NoSchedule 172.30.0.1",
		} {
			e, open := <-w.ResultChan()
			if got := string(e.Type) + " " + described(e.Object); !open || got != want {
				t.Errorf("told is %q, want %q", got, want)
			}
			if end := e.Object.(*v1.Node).Annotations[metav1.InitialEventsAnnotationKey]; (end == "true") != (e.Type == watch.Bookmark) {
				t.Errorf("%s: the end of the list is announced: %q", want, end)
			}
		}
		// One who watches from before what is remembered is told so.
		s.Compact()
		old, err := nodes.watch(t.Context(), metav1.ListOptions{ResourceVersion: "11"})
		if err == nil {
			defer old.Stop()
			e := <-old.ResultChan()
			err = apierrors.FromObject(e.Object)
		}
		if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
			t.Errorf("a watch from long ago is %v", err)
		}
		s.Stop()
		if e, open := <-w.ResultChan(); open {
			t.Errorf("when the server goes away, told is %v", e)
		}
	})
}

// protobufOf is an object as the API server sends it.
func protobufOf(t *testing.T, o apiruntime.Object) []byte {
	t.Helper()
	info, is := apiruntime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), apiruntime.ContentTypeProtobuf)
	if !is {
		t.Fatal("there is no protobuf")
	}
	raw, err := apiruntime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, v1.SchemeGroupVersion), o)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func listOf(n int) *v1.NodeList {
	list := &v1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "next"}}
	for i := range n {
		list.Items = append(list.Items, *busyNode(i))
	}
	return list
}

// A list that is cut off anywhere is refused: its end would be nodes that are gone.
func TestListThatIsCutOff(t *testing.T) {
	raw := protobufOf(t, listOf(2))
	list, err := readList(bufio.NewReader(bytes.NewReader(raw)), nodeKind())
	if err != nil || len(list.Items) != 2 || list.ResourceVersion != "7" || list.Continue != "next" {
		t.Fatalf("read is %v, %v", list, err)
	}
	// The last two fields of the envelope are empty, and of no interest.
	const rest = 4
	for end := range len(raw) - rest {
		if _, err := readList(bufio.NewReader(bytes.NewReader(raw[:end])), nodeKind()); err == nil {
			t.Fatalf("%d bytes of %d are taken for a list", end, len(raw))
		}
	}
}

func TestAnswersThatAreNoList(t *testing.T) {
	for _, c := range []struct {
		name, answer, want string
	}{
		{"nothing", "", "unexpected EOF"},
		{"something else in protobuf", string(protobufOf(t, &v1.Service{})), `the API server answered with a "Service"`},
		{"something else in JSON", `{"kind": "PodList", "apiVersion": "v1"}`, `the API server answered with a "PodList"`},
		{"a page of a proxy", "<html>", "decoding JSON: invalid character '<'"},
		{"not protobuf", magic + "\xff\xff\xff", "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := readList(bufio.NewReader(strings.NewReader(c.answer)), nodeKind())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it is %v, want %s", err, c.want)
			}
		})
	}
}

// frame is an event as it is sent to who watches.
func frame(t *testing.T, kind string, object []byte) []byte {
	t.Helper()
	e := &metav1.WatchEvent{Type: kind, Object: apiruntime.RawExtension{Raw: object}}
	message, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

func TestEventsThatAreNone(t *testing.T) {
	node := protobufOf(t, busyNode(1))
	good := frame(t, "MODIFIED", node)
	for _, c := range []struct {
		name, answer, want string
	}{
		{"of an unknown kind", string(frame(t, "RENAMED", node)), `"RENAMED" of a "Node"`},
		{"of something else", string(frame(t, "ADDED", protobufOf(t, &v1.Service{}))), `"ADDED" of a "Service"`},
		{"without an object", string(frame(t, "ADDED", nil)), "not in the protobuf of Kubernetes"},
		{"of absurd length", "\x7a" + string(good[1:]), "an object of"},
		{"cut off", string(good[:len(good)-1]), io.ErrUnexpectedEOF.Error()},
		{"of something else in JSON", `{"type": "ADDED", "object": {"kind": "Pod"}}`, `"ADDED" of a "Pod"`},
		{"the end", "", io.EOF.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEvents(io.NopCloser(strings.NewReader(c.answer)), nodeKind())
			if _, _, err := e.Decode(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it is %v, want %s", err, c.want)
			}
		})
	}
	e := newEvents(io.NopCloser(bytes.NewReader(append(good, good...))), nodeKind())
	for range 2 {
		if kind, o, err := e.Decode(); kind != watch.Modified || err != nil || o.(*v1.Node).Name != "n1" {
			t.Errorf("read is %s %v %v", kind, o, err)
		}
	}
	if _, _, err := e.Decode(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
}

// The list is never in memory as a whole.
func TestMemoryOfALongList(t *testing.T) {
	const nodes = 500
	raw := protobufOf(t, listOf(nodes))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	list, err := readList(bufio.NewReaderSize(bytes.NewReader(raw), bufferSize), nodeKind())
	runtime.ReadMemStats(&after)
	if err != nil || len(list.Items) != nodes {
		t.Fatal(len(list.Items), err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > uint64(len(raw))/4 {
		t.Errorf("reading %d bytes of %d nodes took %d bytes in all", len(raw), nodes, took)
	}
}
